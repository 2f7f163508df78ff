"""ENOSPC and EIO at every write, and a disk that is filled.

strace makes system calls on the files of a life fail. Each kind of call has its turn: a case lets
every so-manyeth one of it fail, once each, so that a round of cases hits each one that a life
makes; or a run of them, as a full or a dying disk does. strace counts by thread. The last cases
fill a small disk (tmpfs) with a file of others', and empty it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from tests.chaos.disk_known import Known, judge
from tests.chaos.disk_life import KEY, QUOTA, Course
from tests.chaos.power import memory
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_agent.store.database import Database

STEPS: Final = 100
APART: Final = {
    "pwrite64": (61, 1500),
    "fdatasync": (11, 300),
    "fsync": (5, 60),
    "write": (3, 40),
    "ftruncate": (5, 50),
    "openat": (61, 200),
    "rename": (3, 40),
    "unlink": (3, 20),
    "fallocate": (2, 10),
    "mkdir": (2, 10),
}
"""How many calls lie between two that fail, and the last one of a thread that does: a box that
fails always can do nothing, nor can one that makes just as many calls to try again. A life without
faults makes somewhat fewer than the last: 1,200 pwrite64, 25 ftruncate."""
BURSTS: Final = 60
FULL_DISKS: Final = 20
DISK: Final = "6m"
_NAMES: Final = (
    *("agent.db", "agent.db-wal", "agent.db-journal", "agent.db-shm"),
    *("guard.json", "guard.json.new", "reserve", "damaged", KEY, "vehicle.new", ""),
)
_MANY: Final = ("agent.db.salvage", "agent.db.salvage-wal", "agent.db.salvage-journal")
"""A salvage makes more writes in a row than lie between two that fail, and so does a new schema."""
_TELL_S: Final = 10.0
_LONGEST_S: Final = 120


@cache
def kinds() -> list[tuple[str, str, str]]:
    """What a case does: call, error and strace's "when"; in an order that mixes them."""
    found = [
        (call, error, f"{start}..{last}+{apart}")
        for call, (apart, last) in APART.items()
        for start in range(1, apart + 1)
        for error in ("ENOSPC", "EIO")
        # The only call of each thread that reads: a box that can never read can do nothing.
        if (call, start) != ("openat", 1)
    ]
    dice = random.Random(1)
    for _ in range(BURSTS):
        start = dice.randrange(1, 1500)
        burst = f"{start}..{start + dice.choice((0, 2, 10, 50))}"
        found.append((dice.choice(("pwrite64", "fdatasync")), "ENOSPC", burst))
        found.append((dice.choice(("pwrite64", "fdatasync")), "EIO", burst))
    found += [("a full disk", "", "")] * FULL_DISKS
    dice.shuffle(found)
    return found


def run(plan: Plan, *, swallows: bool = False) -> Outcome:
    outcome = Outcome()
    told = time.monotonic()
    asyncio.run(_make_schema(plan.folder / "template"))
    with ThreadPoolExecutor(2) as pool:
        doing = [pool.submit(_case, plan, case, swallows) for case in plan.cases]
        for done in as_completed(doing):
            part = done.result()
            outcome.count += 1
            outcome.acknowledged += part.acknowledged
            outcome.lost += part.lost
            outcome.visible_duplicates += part.visible_duplicates
            outcome.failures += part.failures
            for name, value in part.figures.items():
                before = float(outcome.figures.get(name, 0))
                both = (before, float(value))
                outcome.figures[name] = max(both) if name.startswith("slowest") else sum(both)
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                plan.tell(f"{outcome.count} of {len(plan.cases)} lives, {outcome.figures}")
    return outcome


async def _make_schema(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    database = Database(folder, QUOTA)
    await database.open()
    await database.close()


def _case(plan: Plan, case: int, swallows: bool) -> Outcome:
    call, error, when = kinds()[case % len(kinds())]
    name = f"{case}: {call} {error} {when}".rstrip()
    with tempfile.TemporaryDirectory(dir=memory(), prefix="nexus-faults-") as made:
        place = Path(made)
        course = Course(
            folder=str(place / "box"),
            marks=str(place / "marks"),
            seed=f"{plan.seed}:{case}",
            steps=STEPS,
            deadline_s=2.0,
            swallows=swallows,
        )
        outcome = Outcome()
        if "+" in when:
            shutil.copytree(plan.folder / "template", course.folder)
        if error:
            _suffer(course, _inject(place, call, error, when), name, outcome)
            trace = (place / "trace").read_text()
            outcome.figures["faults"] = trace.count("(INJECTED)")
        elif os.geteuid() != 0:
            outcome.figures["full disks left out, for want of root to mount them"] = 1
        else:
            with _small_disk(place / "disk") as disk:
                (disk / "ballast").touch()
                course = replace(course, folder=str(disk / "box"))
                _suffer(course, [], name, outcome)
                outcome.figures["full disks"] = 1
        if outcome.failures and place.exists():
            shutil.copytree(place, plan.folder / f"case-{case}", dirs_exist_ok=True)
    return outcome


def _inject(place: Path, call: str, error: str, when: str) -> list[str]:
    names = _NAMES if "+" in when else (*_NAMES, *_MANY)
    watched = [part for name in names for part in ("-P", str(place / "box" / name).rstrip("/"))]
    trace = ["-o", str(place / "trace"), "-e", f"trace={call}", "-e", "signal=none"]
    return [
        *("strace", "-f", "--seccomp-bpf", *trace, *watched),
        *("-s", "0", "-e", f"inject={call}:error={error}:when={when}"),
    ]


def _suffer(course: Course, under: list[str], name: str, outcome: Outcome) -> None:
    """Let it live, then open what it left."""
    command = [*under, sys.executable, "-m", "tests.chaos.faults_life", course.text()]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        outcome.failures.append(f"{name}: it hangs")
        return
    known = Known(course.seed, faulty=3)
    marks = Path(course.marks).read_bytes()
    known.note(marks)
    if done.returncode:
        last = done.stderr.strip().splitlines()
        outcome.failures.append(f"{name}: it ended with {done.returncode}: {last[-6:]}")
    verdict = asyncio.run(judge(Path(course.folder), known))
    outcome.acknowledged = len(known.promised)
    outcome.lost = verdict.missing
    outcome.visible_duplicates = verdict.twice
    outcome.failures += [f"{name}: {text}" for text in verdict.failures]
    took = [json.loads(line)["seconds"] for line in marks.splitlines() if b'"drained"' in line]
    outcome.figures["slowest to drain"] = round(max(took, default=0.0), 2)


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "nexus-faults", str(at)]
    subprocess.run(mount, check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _swallowing(plan: Plan) -> Outcome:
    """In lives whose commits fail: elsewhere there is nothing to swallow."""
    commits = [case for case, (call, _, _) in enumerate(kinds()) if call == "fdatasync"]
    return run(replace(plan, cases=commits[: len(plan.cases)]), swallows=True)


SUITE: Final = Suite(
    name="faults",
    what="ENOSPC and EIO at every write, and full disks",
    run=run,
    quick=5,
    full=len(kinds()),
    controls=(Control("a sealer that swallows the commit's error", _swallowing, 4),),
    needs=("strace",),
)
