"""A box's store that lives a random life on a disk, and notes outside of it what it has promised.

`python -m tests.chaos.disk_life '{"folder": …}'` is one life, as the suites `power` and `faults`
run it in a process of its own. All that writes is used: emit, hand-over, acknowledgement, eviction
under a small quota, the guard file, the loss ledger, re-sealing, expiry, new epochs, salvage,
damaged payloads, plugins' state, the vehicle key, clean stops and starts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from tests.unit.agent.store.boxed import HOUR, Hours, SetClock

from nexus_agent import app, logs
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Ack, Segment, Stream, open_segment
from nexus_agent.store import buffer, guard, segments
from nexus_agent.store import sealer as sealing
from nexus_agent.store.database import Database
from nexus_agent.store.errors import DamagedError, StoreError
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.sealer import Sealer
from nexus_agent.store.state import PluginState

TYPE: Final = "test.value"
QUOTA: Final = 1_000_000
KEY: Final = "vehicle.key"
_RETRY_S: Final = 0.02
_START_S: Final = 40.0
"""A first start makes the schema, and each write that fails begins it anew."""


@dataclass(frozen=True, slots=True)
class Course:
    """What a life is like. marks: the file for its notes, outside of folder.

    synchronous: SQLite's, None for the product's own. guard_synced: False leaves out the guard
    file's fsync. swallows: a sealer that takes a failed commit for done.
    """

    folder: str
    marks: str
    seed: str
    steps: int
    deadline_s: float = 0.3
    synchronous: str | None = None
    guard_synced: bool = True
    swallows: bool = False

    def text(self) -> str:
        return json.dumps(asdict(self))


@lru_cache(4096)
def payload(seed: str, event: int) -> dict[str, Any]:
    """The data of an event: its number, and noise that no other has."""
    dice = random.Random(f"{seed}:{event}")
    size = dice.choice((*[dice.randrange(100)] * 7, *[dice.randrange(2000)] * 2, 25_000))
    return {"event": event, "noise": base64.b64encode(dice.randbytes(size)).decode()}


class _Weaker(Database):
    """A control: the database as others set it up."""

    synchronous = "OFF"

    def _connect(self) -> None:
        super()._connect()
        assert self._connection is not None
        self._connection.execute(f"PRAGMA synchronous={self.synchronous}")


class Life:
    """One box. Every step may fail where the disk does; then it goes on with the next."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.folder = Path(course.folder)
        self.dice = random.Random(course.seed)
        self.clock = SetClock()
        self.made = 0
        self.turns = 0
        self._marks = os.open(course.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._sealing: asyncio.Task[None] | None = None

    def mark(self, kind: str, **what: Any) -> None:
        """What is noted is known to have happened: one write, seen among those to the disk."""
        os.write(self._marks, json.dumps({"kind": kind, **what}).encode() + b"\n")

    # -- start and stop

    async def start(self) -> None:
        """As the agent starts: it waits for a disk that does not work yet."""
        self.database = self._make_database()
        self.outbox = Outbox(self.database, "bay-1", self.clock, deadline_s=self.course.deadline_s)
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    await self.database.open()
                    await self.outbox.open()
                    break
                except StoreError:
                    await self.database.shut()
                    await asyncio.sleep(_RETRY_S)
        self.outbox.on_sealed(self._tell_sealed)
        self.outbox.on_epoch(self._tell_epoch)
        self.state = PluginState(self.database, "test")
        self._sealing = asyncio.get_running_loop().create_task(self.outbox.run(), name="outbox")
        self._tell_guard()
        self._tell_epoch()

    def _make_database(self) -> Database:
        if self.course.synchronous is None:
            return Database(self.folder, QUOTA)
        _Weaker.synchronous = self.course.synchronous
        return _Weaker(self.folder, QUOTA)

    async def stop(self) -> None:
        self.outbox.close()
        if self._sealing is not None:
            await self._sealing
        await self.outbox.remember()
        await self.database.close()

    def _tell_sealed(self, segment: Segment) -> None:
        events = [(e.seq, e.data["event"]) for e in open_segment(segment) if e.type == TYPE]
        self.mark(
            "sealed",
            stream=segment.stream,
            epoch=segment.epoch,
            last=segment.last,
            events=events,
        )

    def _tell_guard(self) -> None:
        known = guard.read(self.folder)
        if known is not None:
            self.mark("guard", epoch=known.epoch, next=known.next)

    def _tell_epoch(self) -> None:
        self.mark("epoch", epoch=self.outbox.epoch)

    # -- a life

    async def run(self) -> None:
        """All steps; errors of the disk end a step only."""
        await self.start()
        for _ in range(self.course.steps):
            await self.step()
        await self.stop()

    async def step(self) -> None:
        self.clock.wall += HOUR // 60
        name = self.dice.choices(list(_STEPS), list(_STEPS.values()))[0]
        step: Callable[[], Awaitable[None]] = getattr(self, name)
        with suppress(StoreError, EmitError):
            await step()
        with suppress(StoreError, EmitError):
            # As the housekeeper does, which nobody asks.
            await self.outbox.heal()

    def _values(self, count: int) -> list[tuple[str, Any]]:
        self.made += count
        first = self.made - count + 1
        return [(TYPE, payload(self.course.seed, n)) for n in range(first, self.made + 1)]

    async def _emit(self, stream: Stream, values: Sequence[tuple[str, Any]]) -> None:
        events = [data["event"] for _, data in values]
        try:
            await self.outbox.emit("test", values, stream)
        except EmitError:
            self.mark("refused", events=events)
            raise
        self.mark("promised", stream=stream, events=events)

    def _any_stream(self) -> Stream:
        return self.dice.choice(list(Stream))

    async def emit(self) -> None:
        await self._emit(self._any_stream(), self._values(1))

    async def emit_many(self) -> None:
        await self._emit(self._any_stream(), self._values(self.dice.randint(2, 12)))

    async def emit_together(self) -> None:
        """In one commit, or in as many as it takes."""
        async with asyncio.TaskGroup() as group:
            for stream in Stream:
                values = self._values(self.dice.randint(1, 3))
                group.create_task(self._emit_if(stream, values), name=f"emit-{stream}")

    async def _emit_if(self, stream: Stream, values: Sequence[tuple[str, Any]]) -> None:
        with suppress(EmitError):
            await self._emit(stream, values)

    async def hand_over(self) -> None:
        self.outbox.hand_over_many("test", self._values(2), self._any_stream())

    async def deliver(self) -> None:
        """What waits first goes out, and a part of it is acknowledged."""
        stream = self._any_stream()
        found = await self.outbox.after(stream, 0, self.dice.randint(1, 6))
        if not found:
            return
        reached = self.dice.choice(found)
        self.note_read(found)
        self.outbox.sent(stream, segments.row_id(found[-1].epoch, found[-1].last))
        ack = Ack(epoch=reached.epoch, stream=stream, seq=reached.last)
        self.mark("released", stream=stream, epoch=ack.epoch, last=ack.seq)
        await self.outbox.acknowledge(ack)

    def note_read(self, found: Sequence[Segment]) -> None:
        """What goes out must be what came in."""
        data = [e.data for s in found for e in open_segment(s) if e.type == TYPE]
        bad = [d["event"] for d in data if d != payload(self.course.seed, d["event"])]
        self.mark("read", events=[d["event"] for d in data], altered=bad)

    async def save(self) -> None:
        await self.outbox.save()

    async def report_losses(self) -> None:
        await self.outbox.report_losses()

    async def remember(self) -> None:
        await self.outbox.remember()
        self._tell_guard()

    async def tidy(self) -> None:
        keep = Keep(self.dice.choice((0.0, 1e6)), self.dice.choice((0.0, 0.1, 1e6)))
        keeper = Housekeeper(self.outbox, self.database, self.clock, keep, Hours(log=24.0))
        await keeper.tidy()

    async def time_passes(self) -> None:
        self.clock.wall += 30 * HOUR

    async def renew(self) -> None:
        if self._may_turn():
            await self.outbox.renew("a test")

    def _may_turn(self) -> bool:
        """Few epochs are enough."""
        self.turns += 1
        if self.turns > 6:
            return False
        self.mark("turning")
        return True

    async def heal(self) -> None:
        """A salvage, of a file that is sound; somebody may be reading beside, so the log stays."""
        if not self._may_turn():
            return
        with ExitStack() as stack:
            with suppress(sqlite3.OperationalError):  # the disk may refuse others, too
                beside = sqlite3.connect(f"{self.database.path.as_uri()}?mode=ro", uri=True)
                stack.callback(beside.close)
                if self.dice.random() < 0.7:
                    beside.execute("SELECT count(*) FROM epoch").fetchall()
            self.database.damage = DamagedError("as a test has it")
            await self.outbox.heal()

    async def damage(self) -> None:
        """One byte of the oldest waiting payload of a stream is another from now on."""
        stream = self._any_stream()
        found = await self.outbox.after(stream, 0, 1)
        if found:
            events = [e.data["event"] for e in open_segment(found[0]) if e.type == TYPE]
            self.mark("damaged", events=events)
            await self.database.run(partial(_flip, found[0]))
            await self.outbox.after(stream, 0, 1)

    async def set_state(self) -> None:
        self.made += 1
        self.mark("setting", value=self.made)
        await self.state.set("count", self.made)
        self.mark("set", value=self.made)

    async def key(self) -> None:
        with suppress(app.AgentError):
            self.mark("key", value=app._vehicle_key(self.folder / KEY).decode())

    async def restart(self) -> None:
        try:
            await self.stop()
        finally:
            await self.start()


_STEPS: Final = {
    "emit": 30,
    "emit_many": 14,
    "emit_together": 10,
    "hand_over": 5,
    "deliver": 16,
    "save": 4,
    "report_losses": 4,
    "remember": 3,
    "tidy": 4,
    "time_passes": 1,
    "renew": 1,
    "heal": 2,
    "damage": 1,
    "set_state": 3,
    "key": 1,
    "restart": 2,
}
"""What may come next, and how often."""


def _flip(segment: Segment, connection: sqlite3.Connection) -> None:
    middle = len(segment.payload) // 2
    flipped = bytes([segment.payload[middle] ^ 1])
    bad = segment.payload[:middle] + flipped + segment.payload[middle + 1 :]
    connection.execute(
        f"UPDATE {segments.SEGMENT_TABLES[segment.stream]} SET payload=? WHERE id=?",
        (bad, segments.row_id(segment.epoch, segment.first)),
    )


def _write_unsynced(folder: Path, known: guard.Guard) -> None:
    """A control: the guard file as many would write it."""
    new = folder / f"{guard.FILE_NAME}.new"
    new.write_bytes(known.model_dump_json().encode())
    new.replace(folder / guard.FILE_NAME)


async def _swallow(sealer: Sealer, late: Any, _error: StoreError) -> None:
    """A control: what the disk did not take counts as committed."""
    sealer.buffer.release([late.batch])
    late.batch.done.set_result(None)


def prepare(course: Course) -> None:
    """Make the process such a box."""
    logs.configure(logs.LogSettings(level="error"))
    # Nobody waits a second for company here.
    buffer.WINDOW_S.update({Stream.TELEMETRY: 0.01, Stream.LOG: 0.01})
    patch.object(sealing, "RETRY_S", _RETRY_S).start()
    if course.swallows:
        patch.object(Sealer, "_refused", _swallow).start()
    if not course.guard_synced:
        patch.object(guard, "write", _write_unsynced).start()


def main(life: type[Life] = Life) -> None:
    course = Course(**json.loads(sys.argv[1]))
    prepare(course)
    asyncio.run(life(course).run())


if __name__ == "__main__":
    main()
