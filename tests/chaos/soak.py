"""`make soak HOURS=1`: 20 events a second and random faults for hours. The last line is JSON.

Nothing promised may be lost, and neither agent nor console may grow. They are sampled every 10 s.
Memory and descriptors are judged by the slope over all lives of a process, each life on a level of
its own and without its first ten minutes, in which caches fill and descriptors that are opened once
are opened. In the second half neither agent nor console is killed, so that each has a life long
enough to be judged. The write-ahead log, which outlives its process, is judged by its size.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from tests.chaos.shop import Load, Shop, Victim, amiss, duplicates, leaves, opened
from tests.chaos.trend import Sample, Trend, trend

from nexus_agent import logs
from nexus_demo.waiting import DemoError

OUTPUT: Final = Path("build/soak.json")
SAMPLES: Final = Path("build/soak.csv")
RATE: Final = 20.0
PAUSE_S: Final = 30.0
"""Between two faults, on average."""
SAMPLE_S: Final = 10.0
TELL_S: Final = 60.0
WARM_S: Final = 600.0
"""A process fills its caches first: in its first ten minutes each life of a console grew from 83 to
93 MB along the same curve, and after them by less than 1 MB in four minutes."""
FEW: Final = 12
"""With fewer samples a life's own trend is not printed."""
DISK_MB: Final = 128
_FULL_CHUNK: Final = 64 * 1024


Fault = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limit:
    """growth: in an hour. cached: as much more for each of the process's connections to its
    database as that grows, because each keeps pages in memory, up to a bound: 2 MB in the agent,
    64 MB in the console.
    """

    what: str
    unit: str
    growth: float
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Watched:
    """log: megabytes that the write-ahead log may take. copies: of a new page of the database, in
    the memory of the connection that writes and of one that reads: the console's rolls readings up.
    """

    log: float
    copies: int = 2


LIMITS: Final = (Limit("memory", "MB", 6.0, cached=True), Limit("descriptors", "", 2.0))
WATCHED: Final = {
    # Its share of the quota is 16 MiB.
    "agent": Watched(log=16.8),
    # Folded back from 32 MB on, and a commit may be under way.
    "console": Watched(log=40.0),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a process. at: seconds since the run began; age: since the process did."""

    process: str
    pid: int
    at: float
    age: float
    memory: float
    descriptors: float
    log: float
    database: float


@dataclass(slots=True)
class Run:
    """What is known of a run so far."""

    dice: random.Random
    began: float
    ends: float
    folder: Path
    faults: Counter[str] = field(default_factory=Counter)
    readings: list[Reading] = field(default_factory=list)

    @property
    def is_half_over(self) -> bool:
        return time.monotonic() > (self.began + self.ends) / 2


def main() -> int:
    options = _options()
    logs.configure(logs.LogSettings(level="error"))
    seed = options.seed if options.seed is not None else secrets.randbelow(2**32)
    folder = (OUTPUT.parent / "soak").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _say(f"soak: {options.hours:g} h, {RATE:g} events/s, seed {seed}")
    began = time.monotonic()
    run = Run(random.Random(seed), began, began + options.hours * 3600, folder)
    row: dict[str, Any] = {"name": "soak", "seed": seed, "hours": options.hours, "ok": False}
    try:
        with _small_disk(folder / "box-1" / "state"):
            asyncio.run(_soak(run, seed, row))
    except* DemoError as group:
        row["failures"] = [str(error) for error in leaves(group)]
    row["faults"] = dict(run.faults)
    _write(run.readings)
    if row["ok"]:
        shutil.rmtree(folder)
    text = json.dumps(row)
    OUTPUT.write_text(text + "\n", "utf-8")
    print(text)
    return 0 if row["ok"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, help="gives the same faults in the same order again")
    return parser.parse_args()


async def _soak(run: Run, seed: int, row: dict[str, Any]) -> None:
    async with opened(run.folder, 1, Load(RATE, seed, relayed=True)) as shop:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(run, shop), name="watch")
            await _trouble(run, shop)
            await shop.drain()
            watching.cancel()
        verdict = await shop.judge()
        delivery = await shop.delivery()
    failures = amiss(delivery)
    failures += [f"lost: {number}" for number in verdict.lost]
    failures += [f"visible twice: {number}" for number in verdict.twice]
    failures += [f"out of order: {number}" for number in verdict.astray]
    growth = list(_growth(run.readings, failures))
    row |= {
        "acknowledged": verdict.promised,
        "lost": len(verdict.lost),
        "visible_duplicates": len(verdict.twice),
        "wire_duplicates": duplicates(delivery),
        "drain_s": round(shop.drain_s, 1),
        "growth": growth,
        "ok": not failures,
        "failures": failures[:20],
    }
    for failure in failures[:20]:
        _say(f"  {failure}")


# -- faults --------------------------------------------------------------------------------------


async def _trouble(run: Run, shop: Shop) -> None:
    """One fault after the other until the time is over."""
    dice = run.dice
    faults = _faults(shop, dice)
    while True:
        pause = dice.expovariate(1 / PAUSE_S)
        if time.monotonic() + pause > run.ends:
            await asyncio.sleep(max(0.0, run.ends - time.monotonic()))
            return
        await asyncio.sleep(pause)
        spared = {"kill agent", "kill console"} if run.is_half_over else set()
        choice = {name: weight for name, (weight, _) in faults.items() if name not in spared}
        (name,) = dice.choices(list(choice), list(choice.values()))
        run.faults[name] += 1
        await faults[name][1]()


def _faults(
    shop: Shop, dice: random.Random
) -> dict[str, tuple[int, Callable[[], Awaitable[None]]]]:
    """Each fault with its weight."""
    (box,) = shop.boxes

    def killed(victim: Victim) -> Fault:
        async def kill() -> None:
            await victim.fall(0)
            await victim.rise(dice.choice((0.0, dice.uniform(0, 20))))

        return kill

    def frozen(victim: Victim) -> Fault:
        return lambda: victim.freeze(dice.uniform(1, 8))

    async def cut() -> None:
        await box.relay.cut()
        await asyncio.sleep(dice.choice((0.0, dice.uniform(0, 20))))
        await box.relay.open()

    async def full() -> None:
        with _filled(box.state):
            await asyncio.sleep(dice.uniform(3, 15))

    found = {
        "kill agent": (1, killed(box.agent)),
        "kill broker": (2, killed(shop.mosquitto)),
        "kill console": (1, killed(shop.console)),
        "cut the line": (4, cut),
        "freeze broker": (2, frozen(shop.mosquitto)),
        "freeze console": (2, frozen(shop.console)),
    }
    if os.geteuid() == 0:
        found["fill the disk"] = (2, full)
    return found


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for the box's state, so that it can be filled: that takes root."""
    if os.geteuid() != 0:
        _say("  no disk is filled: that needs root")
        yield
        return
    folder.mkdir(parents=True)
    options = f"size={DISK_MB}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "nexus-soak", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    """A disk without a free byte for the length of a block."""
    file = folder / "of-somebody-else"
    try:
        with file.open("wb", buffering=0) as output, suppress(OSError):
            while output.write(bytes(_FULL_CHUNK)):
                pass
        yield
    finally:
        file.unlink()


# -- growth --------------------------------------------------------------------------------------


async def _watch(run: Run, shop: Shop) -> None:
    began = told = time.monotonic()
    (box,) = shop.boxes
    processes = {
        "agent": (box.agent, box.state / "agent.db"),
        "console": (shop.console, shop.database),
    }
    while True:
        await asyncio.sleep(SAMPLE_S)
        now = time.monotonic()
        for name, (victim, database) in processes.items():
            if not victim.is_up:
                continue
            with suppress(psutil.Error, FileNotFoundError):  # it is killed at this moment
                run.readings.append(_look(name, victim.process.pid, now - began, database))
        if now - told >= TELL_S:
            told = now
            newest = {r.process: f"{r.memory:.1f} MB" for r in run.readings}
            _say(f"  {(now - began) / 60:.0f} min, {run.faults.total()} faults, {newest}")


def _look(name: str, pid: int, at: float, database: Path) -> Reading:
    process = psutil.Process(pid)
    log = database.with_name(f"{database.name}-wal")
    with process.oneshot():
        return Reading(
            process=name,
            pid=pid,
            at=round(at, 1),
            age=round(time.time() - process.create_time(), 1),
            memory=process.memory_info().rss / 1e6,
            descriptors=process.num_fds(),
            log=log.stat().st_size / 1e6,
            database=database.stat().st_size / 1e6,
        )


def _growth(readings: list[Reading], failures: list[str]) -> Iterator[dict[str, Any]]:
    """A line of the result for each process and figure; what grows too fast is a failure."""
    for name, watched in WATCHED.items():
        own = [reading for reading in readings if reading.process == name]
        warm = _lives([reading for reading in own if reading.age > WARM_S])
        database = _trend(warm, "database")
        cache = watched.copies * max(0.0, database.slope) if database else 0.0
        for limit in LIMITS:
            found = _trend(warm, limit.what)
            allowed = limit.growth + (cache if limit.cached else 0.0)
            _tell(name, limit, warm, found, allowed)
            if found is not None and found.exceeds(allowed):
                failures.append(
                    f"{name}: {limit.what} grows {found} {limit.unit}, more than {allowed:.1f}"
                )
            row = {"process": name, "what": limit.what, "limit": round(allowed, 1)}
            yield row | _numbers(found)
        most = max((reading.log for reading in own), default=0.0)
        second = trend([[(reading.at, reading.log) for reading in own[len(own) // 2 :]]])
        _say(f"  {name}, log: {most:.1f} MB of {watched.log} at most; second half: {second}")
        if most > watched.log:
            failures.append(f"{name}: a write-ahead log of {most:.1f} MB, over {watched.log}")
        row = {"process": name, "what": "log", "limit": watched.log, "most": round(most, 1)}
        yield row | _numbers(second)


def _tell(
    name: str, limit: Limit, lives: dict[int, list[Reading]], found: Trend | None, allowed: float
) -> None:
    _say(f"  {name}, {limit.what}: {found} {limit.unit}, limit {allowed:.1f}")
    for life in lives.values():
        if len(life) >= FEW:
            alone = _trend({0: life}, limit.what)
            first, last = (getattr(life[end], limit.what) for end in (0, -1))
            span = f"{life[0].at:.0f}-{life[-1].at:.0f} s"
            _say(f"    {span}: {first:.1f} to {last:.1f}, {alone}")


def _lives(readings: list[Reading]) -> dict[int, list[Reading]]:
    lives: dict[int, list[Reading]] = {}
    for reading in readings:
        lives.setdefault(reading.pid, []).append(reading)
    return lives


def _trend(lives: dict[int, list[Reading]], what: str) -> Trend | None:
    samples: list[list[Sample]] = [
        [(reading.age, getattr(reading, what)) for reading in life] for life in lives.values()
    ]
    return trend(samples)


def _numbers(found: Trend | None) -> dict[str, Any]:
    if found is None:
        return {"per_hour": None, "error": None, "samples": 0}
    return {
        "per_hour": round(found.slope, 2),
        "error": round(found.error, 2),
        "samples": found.samples,
    }


def _write(readings: list[Reading]) -> None:
    """For whoever wants to draw it."""
    with SAMPLES.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Reading.__slots__)
        rows.writerows(
            [getattr(reading, name) for name in Reading.__slots__] for reading in readings
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
