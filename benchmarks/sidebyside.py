"""The agent beside what others use for the same work, under one load in one run.

Ratios hold where figures do not: what slows this machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from failures import FAILURES, reasons
from figure import Figure
from peers import contest
from peers.bridge import Bridge, PlainBridge
from peers.contest import Backlog, Flow, Kills
from peers.contestant import Contestant
from peers.gateway import BatchedGateway, Gateway
from peers.ours import Nexus
from script import run_script

T = TypeVar("T")

CONTESTANTS: Final[tuple[tuple[type[Contestant], int], ...]] = (
    (Nexus, 400_000),
    (Bridge, 200_000),
    (PlainBridge, 200_000),
    (Gateway, 60_000),
    (BatchedGateway, 100_000),
)
"""Each with the events of its flow: some seconds' work."""
_THROUGH_TROUBLE: Final = (Nexus, Bridge, Gateway)
"""What differs in speed alone need not be killed, too."""
_BACKLOG: Final = 30_000
_KILLS: Final = 3
_CEILING: Final = "raw-ceiling"
_CEILING_S: Final = 60.0
_ENOUGH_S: Final = 480.0
"""After so long nothing more is begun: a busy machine makes the bench no longer than this."""


@dataclass(frozen=True, slots=True)
class _Rival:
    """Whom the agent is held against: the least factor in events/s, the most in CPU an event."""

    name: str
    faster: float | None
    cpu: float | None = None


_RIVALS: Final = (
    _Rival(_CEILING, 0.3),
    _Rival(Bridge.name, 2),
    _Rival(PlainBridge.name, None),
    _Rival(Gateway.name, 20, 0.1),
    _Rival(BatchedGateway.name, None),
)


class _Book:
    """The rows so far."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self.rates: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._until = time.monotonic() + _ENOUGH_S

    def add(
        self,
        name: str,
        what: str,
        value: float,
        unit: str,
        note: str | None = None,
        *,
        budget: str | None = None,
        ok: bool | None = None,
    ) -> None:
        row = Figure(f"peer.{name}.{what}", _rounded(value), unit, budget, ok, note)
        self.figures.append(row)

    def absent(self, name: str, what: str, why: str) -> None:
        """A part that could not be had is a row without a value."""
        note = f"not measured: {why}"
        self.figures.append(Figure(f"peer.{name}.{what}", None, "", ok=False, compared_with=note))

    async def take(self, name: str, what: str, part: Coroutine[Any, Any, T]) -> T | None:
        """What *part* returns, or None where it fails, which is then a row."""
        found: T | None = None
        if time.monotonic() > self._until:
            part.close()
            self.absent(name, what, f"{_ENOUGH_S:.0f} s had gone by: the machine is busy")
            return None
        try:
            found = await part
        except* FAILURES as group:
            self.absent(name, what, reasons(group))
        return found


def _rounded(value: float) -> float:
    return round(value) if value >= 1000 else float(f"{value:.3g}")


async def peers(folder: Path, scale: float) -> list[Figure]:
    """Flow of all, then the trouble. The environment of the gateway is made where it is not yet."""
    book = _Book()
    for kind, whole in CONTESTANTS:
        count = int(whole * scale)
        place = folder / f"{kind.name}-flow"
        if found := await book.take(kind.name, "flow", contest.flow(kind, place, count)):
            _flow(book, kind, found, count)
        if kind is Nexus:
            await _ceiling(book, folder, count)
    for kind in _THROUGH_TROUBLE:
        if kind.name not in book.rates:
            continue  # its flow's row says why
        await _trouble(book, kind, folder, scale)
    for rival in _RIVALS:
        _ratios(book, rival)
    return book.figures


def _flow(book: _Book, kind: type[Contestant], found: Flow, count: int) -> None:
    name = kind.name
    book.rates[name], book.cpu[name] = found.rate, found.cpu
    book.add(name, "throughput", found.rate, "events/s", f"{kind.what}; {count} events")
    book.add(name, "cpu", found.cpu, "CPU-seconds for 100,000", "its own process")
    book.add(name, "idle-memory", found.idle, "MB RSS", "connected, before the first event")
    book.add(name, "peak-memory", found.peak, "MB RSS", f"the highest during the {count}")
    book.add(name, "cold-start", found.cold, "s", "process start to online, its second start")


async def _ceiling(book: _Book, folder: Path, count: int) -> None:
    run = run_script("ceiling.py", folder, count, within=_CEILING_S)
    if (found := await book.take(_CEILING, "flow", run)) is None:
        return
    rate, cpu, peak = found
    book.rates[_CEILING], book.cpu[_CEILING] = rate, cpu / count * 1e5
    how = "encode, compress, write, read, delete: sqlite3, WAL, FULL, 1,000 events a transaction"
    book.add(_CEILING, "throughput", rate, "events/s", f"{how}; {count} events")
    book.add(_CEILING, "cpu", cpu / count * 1e5, "CPU-seconds for 100,000")
    book.add(_CEILING, "peak-memory", peak / 1e6, "MB RSS")


async def _trouble(book: _Book, kind: type[Contestant], folder: Path, scale: float) -> None:
    name, count = kind.name, int(_BACKLOG * scale)
    place = folder / f"{name}-backlog"
    if kept := await book.take(name, "backlog", contest.backlog(kind, place, count)):
        _backlog(book, name, kept, count)
    times = _KILLS if scale == 1 else 1
    for what, cut in (("lost-at-sigkill", False), ("lost-at-sigkill-offline", True)):
        place = folder / f"{name}-{what}"
        if lost := await book.take(name, what, contest.kills(kind, place, times, cut=cut)):
            _lost(book, kind, what, lost)


def _backlog(book: _Book, name: str, kept: Backlog, count: int) -> None:
    how = f"{count} events, {contest.OFFERED} a second, while the line was cut"
    book.add(name, "disk", kept.disk, "bytes/event", f"the most that its files took; {how}")
    book.add(name, "wire", kept.wire, "bytes/event", f"TCP payload up, TLS included; {how}")


def _lost(book: _Book, kind: type[Contestant], what: str, lost: Kills) -> None:
    ours = kind is Nexus
    note = (
        f"of {lost.promised} that its producer was told are accepted, {lost.times} times SIGKILL "
        f"at {contest.OFFERED} events/s; {lost.extra} came again"
    )
    budget, ok = ("0", lost.lost == 0) if ours else (None, None)
    book.add(kind.name, what, lost.lost, "events", note, budget=budget, ok=ok)


def _ratios(book: _Book, rival: _Rival) -> None:
    """The agent's throughput and CPU an event, as multiples of the rival's."""
    ours, other = Nexus.name, rival.name
    if ours not in book.rates or other not in book.rates:
        lacking = ours if ours not in book.rates else other
        book.absent(ours, f"throughput-over-{other}", f"there is no throughput of {lacking}")
        return
    faster, cpu = book.rates[ours] / book.rates[other], book.cpu[ours] / book.cpu[other]
    book.add(
        ours,
        f"throughput-over-{other}",
        faster,
        "times",
        f"{book.rates[ours]:.0f} against {book.rates[other]:.0f} events/s",
        budget=None if rival.faster is None else f">= {rival.faster:g}",
        ok=None if rival.faster is None else faster >= rival.faster,
    )
    book.add(
        ours,
        f"cpu-over-{other}",
        cpu,
        "times",
        f"{book.cpu[ours]:.2f} against {book.cpu[other]:.2f} CPU-seconds for 100,000",
        budget=None if rival.cpu is None else f"<= {rival.cpu:g}",
        ok=None if rival.cpu is None else cpu <= rival.cpu,
    )
