"""What is measured of each contestant, the same for all.

Two parts, each with a fresh folder: *flow*, straight to the remote broker, as fast as it goes; and
*trouble*, over a line that counts bytes and is cut, where the process is killed again and again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from figure import SEED, readings

from peers.contestant import Contestant
from peers.course import Desk, FarEnd, Line, Remote, far_end
from peers.producers.feed import Order

READINGS: Final = 5_000
"""Different ones; a load repeats them, each time with numbers of its own."""
OFFERED: Final = 2_000
"""Events a second while the contestants are killed: within the reach of each."""
_ONLINE_S: Final = 45.0
_SETTLE_S: Final = 2.0
_IDLE_S: Final = 4.0
_FLOW_S: Final = 60.0
_QUIET_S: Final = 8.0
"""Nothing more comes after so long a silence."""
_LONGEST_WAIT_S: Final = 60.0
_FIRST: Final = 100
"""Events before the line is cut: what only the first event of a life does is done by then."""
_LIFE_S: Final = 15
"""Longer than any life that is ended by SIGKILL."""
_APART: Final = 1_000_000
"""Between the first numbers of two orders."""


@dataclass(frozen=True, slots=True)
class Flow:
    """events/s, CPU seconds for 100,000, MB resident idle and at most, seconds start to online."""

    rate: float
    cpu: float
    idle: float
    peak: float
    cold: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Bytes an event: of its files while the line was cut, and of TCP payload up afterwards."""

    disk: float
    wire: float


@dataclass(frozen=True, slots=True)
class Kills:
    """Of *promised* events, accepted in so many lives that SIGKILL ended; extra: came again."""

    times: int
    promised: int
    lost: int
    extra: int


@asynccontextmanager
async def _entered(
    kind: type[Contestant], folder: Path, how: str
) -> AsyncIterator[tuple[Contestant, Remote, Desk, FarEnd]]:
    """A contestant that is ready to be started, on a course of its own."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    load = folder / "load.json"
    load.write_text(json.dumps(readings(READINGS)))
    remote, desk = Remote(folder), Desk()
    contestant = kind(folder / kind.name, remote.ca, desk, load)
    await contestant.prepare()
    async with remote.open(), desk.open(), far_end(kind.form, remote, how) as far:
        try:
            yield contestant, remote, desk, far
        finally:
            await contestant.stop()


async def flow(kind: type[Contestant], folder: Path, count: int) -> Flow:
    """*count* events as fast as they go, after a second start: the first one builds what stays."""
    async with _entered(kind, folder, "count") as (contestant, remote, desk, far):
        port = remote.port if kind.tls else remote.plain
        await far.online(await contestant.start(port), _ONLINE_S)
        await contestant.stop()
        started = await contestant.start(port)
        cold = await far.online(started, _ONLINE_S) - started
        await asyncio.sleep(_IDLE_S)
        idle, cpu = contestant.memory(), contestant.cpu()
        await desk.order(Order(0, count, 0))
        ended = await far.reached(count, _FLOW_S)
        await asyncio.sleep(_SETTLE_S)
        cpu = contestant.cpu() - cpu
        rate = count / (ended - desk.started)
        return Flow(rate, cpu / count * 1e5, idle, contestant.peak_memory(), cold)


async def backlog(kind: type[Contestant], folder: Path, count: int) -> Backlog:
    """*count* events while the line is cut, then delivered."""
    async with _entered(kind, folder, "numbers") as (contestant, remote, desk, far):
        line = Line(remote.port)
        await line.mend()
        await far.online(await contestant.start(line.port), _ONLINE_S)
        await desk.order(Order(0, _FIRST, OFFERED))
        await far.reached(_FIRST, _FLOW_S)
        await line.cut()
        await asyncio.sleep(1)  # it has noticed
        await desk.order(Order(_FIRST, count, OFFERED))
        await desk.taken(_FIRST + count, _FLOW_S)
        kept = await _highest(contestant)
        line.up = 0
        await line.mend()
        await far.reached(_FIRST + count, _FLOW_S)
        wire = line.up
        await line.cut()
        return Backlog(kept / count, wire / count)


async def _highest(contestant: Contestant) -> int:
    """The most bytes that its files take until they grow no more."""
    highest, since = 0, time.monotonic()
    while time.monotonic() - since < _SETTLE_S:
        if (size := contestant.disk()) > highest:
            highest, since = size, time.monotonic()
        await asyncio.sleep(0.05)
    return highest


async def kills(kind: type[Contestant], folder: Path, times: int, *, cut: bool) -> Kills:
    """SIGKILL in the middle of a load, again and again. cut: the line is down by then, too."""
    source = random.Random(SEED)  # noqa: S311 - a load, no secret
    async with _entered(kind, folder, "numbers") as (contestant, remote, desk, far):
        line = Line(remote.port)
        await line.mend()
        for life in range(times):
            await far.online(await contestant.start(line.port), _ONLINE_S)
            await desk.order(Order(life * _APART, OFFERED * _LIFE_S, OFFERED))
            if cut:
                await asyncio.sleep(1)
                await line.cut()
            await asyncio.sleep(source.uniform(1, 3))
            await contestant.kill()
            if cut:
                await line.mend()
        await asyncio.sleep(0.2)  # the last receipts
        await far.online(await contestant.start(line.port), _ONLINE_S)
        found = await _arrived(far, desk.accepted)
        await line.cut()
        lost = missing(desk.accepted, found["ranges"])
        seen = sum(last - first + 1 for first, last in found["ranges"])
        return Kills(times, desk.promised, lost, found["events"] - seen)


async def _arrived(far: FarEnd, accepted: list[tuple[int, int]]) -> dict[str, Any]:
    """What has arrived once all that was accepted has, or nothing more does."""
    until = time.monotonic() + _LONGEST_WAIT_S
    found, since = await far.numbers(), time.monotonic()
    while missing(accepted, found["ranges"]) and time.monotonic() < min(until, since + _QUIET_S):
        await asyncio.sleep(0.5)
        now = await far.numbers()
        if now["events"] != found["events"]:
            found, since = now, time.monotonic()
    return found


def missing(accepted: list[tuple[int, int]], arrived: list[list[int]]) -> int:
    """Events of the ranges *accepted* that are in none of *arrived*."""
    here = {number for first, last in arrived for number in range(first, last + 1)}
    promised = {number for first, last in accepted for number in range(first, last + 1)}
    return len(promised - here)
