"""What a life on a disk has noted, and whether a disk bears it out after a power cut or a fault."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.disk_life import KEY, QUOTA, TYPE, payload
from tests.unit.agent.store.boxed import SetClock

from nexus_agent import app
from nexus_agent.protocol import Event, Stream, open_segment
from nexus_agent.store import guard, ledger
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id
from nexus_agent.store.state import PluginState

Number = tuple[str, int, int]
"""Stream, epoch and sequence."""
_WANTED: Final = {ledger.QUOTA, ledger.TOO_OLD}
"""Causes of losses that no fault of a disk is needed for."""


@dataclass(slots=True)
class Known:
    """What was noted by a moment. turning: a new epoch is being made."""

    seed: str
    promised: set[int] = field(default_factory=set)
    numbers: dict[int, Number] = field(default_factory=dict)
    sealed: dict[tuple[str, int], int] = field(default_factory=dict)
    released: dict[tuple[str, int], int] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)
    altered: set[int] = field(default_factory=set)
    """Of what the sender has read, what was not what had been emitted."""
    epoch: int = 1
    turning: bool = False
    faulty: int = 0
    """How often a new epoch may have failed before it was told of."""
    state: list[int | None] = field(default_factory=lambda: [None])
    """The value that was set last, and one that is being set."""
    guard: tuple[int, dict[str, int]] | None = None
    key: str | None = None

    def note(self, mark: bytes) -> None:
        """Take in one mark of `Life.mark`."""
        for line in mark.splitlines():
            self._note(json.loads(line))

    def _note(self, what: dict[str, Any]) -> None:
        kind = what["kind"]
        if kind in {"sealed", "released"}:
            self._note_lane(kind, what)
        elif kind in {"promised", "damaged", "read"}:
            getattr(self, kind).update(what["events"])
            self.altered.update(what.get("altered", ()))
        elif kind == "turning":
            self.turning = True
        elif kind == "epoch":
            self.epoch, self.turning = what["epoch"], False
        elif kind == "setting":
            self.state.append(what["value"])
        elif kind == "set":
            self.state = [what["value"]]
        elif kind == "guard":
            self.guard = what["epoch"], what["next"]
        elif kind == "key":
            self.key = what["value"]

    def _note_lane(self, kind: str, what: dict[str, Any]) -> None:
        lanes, lane = getattr(self, kind), (what["stream"], what["epoch"])
        lanes[lane] = max(lanes.get(lane, 0), what["last"])
        for seq, event in what.get("events", ()):
            self.numbers[event] = *lane, seq


@dataclass(slots=True)
class Verdict:
    """What a disk lacks. missing: promised events; twice: events that are there twice."""

    failures: list[str] = field(default_factory=list)
    missing: int = 0
    twice: int = 0


async def judge(folder: Path, known: Known) -> Verdict:
    """Open what a cut or a life has left in *folder* as the agent does, and look at everything."""
    verdict = Verdict()
    say = verdict.failures.append
    _judge_files(folder, known, say)
    database = Database(folder, QUOTA)
    outbox = Outbox(database, "bay-1", SetClock())
    try:
        await database.open()
        await outbox.open()
        if database.generation:
            say("the database was taken for a damaged one")
        found = await waiting(outbox)
        losses = await database.read("SELECT stream, epoch, first, last, cause FROM loss")
        check = await database.tend(lambda c: c.execute("PRAGMA quick_check").fetchone())
        if check[0] != "ok":
            say(f"quick_check: {check[0]}")
        value = await PluginState(database, "test").get("count")
        if value not in known.state:
            say(f"plugin state is {value}, not of {known.state}")
        _judge_numbers(outbox, known, say)
        _judge_events(found, losses, known, verdict)
    except Exception as error:  # noqa: BLE001 - whatever escapes here would end the agent
        say(f"cannot be opened: {error!r}")
    finally:
        await database.close()
    return verdict


def _judge_files(folder: Path, known: Known, say: Any) -> None:
    found = guard.read(folder)
    if known.guard is not None:
        epoch, following = known.guard
        if found is None or found.epoch < epoch:
            say(f"guard file: {found}, {known.guard} was synced")
        elif found.epoch == epoch and any(found.next[Stream(s)] < n for s, n in following.items()):
            say(f"guard file: {found} is older than {known.guard}")
    elif (folder / guard.FILE_NAME).exists() and found is None:
        say("the guard file cannot be read")
    try:
        key = app._vehicle_key(folder / KEY).decode()
    except app.AgentError as error:
        say(str(error))
    else:
        if known.key not in {None, key}:
            say("the vehicle key is another one")


def _judge_numbers(outbox: Outbox, known: Known, say: Any) -> None:
    """No number is given twice, and no epoch begins without need."""
    if not known.epoch <= outbox.epoch <= known.epoch + known.turning + known.faulty:
        say(f"epoch {outbox.epoch} begins; {known.epoch} was open")
    for (stream, epoch), last in known.sealed.items():
        if outbox.positions.limit(Stream(stream), epoch) < last:
            say(f"{stream} {epoch}/{last} is unknown, and may be given again")
    for (stream, epoch), last in known.released.items():
        if outbox.positions.limit(Stream(stream), epoch) < last:
            say(f"{stream} {epoch}/{last} was acknowledged, and may be given again")


async def waiting(outbox: Outbox) -> list[Event]:
    """All that would be sent, as the sender reads it."""
    found: list[Event] = []
    for stream in Stream:
        edge = 0
        while part := await outbox.after(stream, edge, 1000):
            found += [event for segment in part for event in open_segment(segment)]
            edge = row_id(part[-1].epoch, part[-1].last)
    return found


def _judge_events(found: list[Event], losses: list[Any], known: Known, verdict: Verdict) -> None:
    say = verdict.failures.append
    there: Counter[int] = Counter()
    for event in found:
        if event.type != TYPE:
            continue
        name = event.data["event"]
        there[name] += 1
        number = str(event.stream), event.epoch, event.seq
        if event.data != payload(known.seed, name):
            say(f"event {name} has another content")
        if known.numbers.get(name, number) != number:
            say(f"event {name} is {number}, it was {known.numbers[name]}")
    verdict.twice = sum(count > 1 for count in there.values())
    if verdict.twice:
        say(f"{verdict.twice} events are there twice")
    if known.altered:
        say(f"read with another content: {sorted(known.altered)[:5]}")
    gone = [n for n in known.promised if not (there[n] or is_settled(n, losses, known))]
    verdict.missing = len(gone)
    if gone:
        say(f"promised and gone: {[(n, known.numbers.get(n)) for n in gone[:5]]} of {len(gone)}")


def is_settled(event: int, losses: list[Any], known: Known) -> bool:
    """Whether it is acknowledged, or lost for a good reason."""
    stream, epoch, seq = known.numbers.get(event, ("", 0, 0))
    if event in known.read and seq <= known.released.get((stream, epoch), 0):
        return True
    for lane, number, first, last, cause in losses:
        if (lane, number) == (stream, epoch) and first <= seq <= last:
            return cause in _WANTED or event in known.damaged
    return False
