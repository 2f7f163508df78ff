"""The sealer: turns batches into sealed segments, in one transaction, in the order of their `emit`.

What the disk does not take is tried again until its deadline; a more urgent stream does not wait
for it meanwhile. Whoever waits for a batch is told when it is given up.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Segment, Stream, seal
from nexus_agent.store import positions, segments
from nexus_agent.store.buffer import Batch, Buffer
from nexus_agent.store.database import Database
from nexus_agent.store.errors import FullError, StoreError
from nexus_agent.store.positions import Positions
from nexus_agent.store.space import URGENCY

T = TypeVar("T")

log = structlog.get_logger("outbox")

RETRY_S: Final = 0.2
RELIEF_BYTES: Final = 1024 * 1024
"""History that is dropped when the disk itself is full, a step at a time."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why nothing can be written, since when (wall time, ns), and how many events it has cost."""

    reason: str
    since: int
    refused: int = 0


@dataclass(slots=True)
class _Late:
    """A batch that the disk has not taken yet."""

    batch: Batch
    deadline: float


class Sealer:
    """`run` seals until `close`. `at` is shared with the outbox and changes under `lock` only."""

    def __init__(self, database: Database, clock: Clock, deadline_s: float) -> None:
        self.buffer = Buffer()
        self.lock = asyncio.Lock()
        self.at = Positions(epoch=0)
        self.adrift = False
        """Another database has come, and `at` could not be read from it yet."""
        self.trouble: Trouble | None = None
        self.refused_events = 0
        self._database = database
        self._clock = clock
        self.deadline_s = deadline_s
        self._closing = False
        self._late: list[_Late] = []
        self._retry_at = 0.0
        self._sealed_listeners: list[Callable[[Segment], None]] = []
        self._trouble_listeners: list[Callable[[Trouble | None, Trouble | None], None]] = []

    @property
    def closing(self) -> bool:
        return self._closing

    def on_sealed(self, listener: Callable[[Segment], None]) -> None:
        """Have *listener* called for every segment once it is committed."""
        self._sealed_listeners.append(listener)

    def on_trouble(self, listener: Callable[[Trouble | None, Trouble | None], None]) -> None:
        """Have *listener* called with the trouble before and now when it begins, or ends."""
        self._trouble_listeners.append(listener)

    def close(self) -> None:
        """Let `run` end once what was taken is committed, or was tried once more."""
        self._closing = True
        self.buffer.wake()

    async def run(self) -> None:
        """Seal and commit batches as they fall due, until `close`."""
        while not self._closing or self.buffer or self._late:
            due = self._due()
            if due:
                await self._commit(due)
            else:
                await self.buffer.until_due(before=self._retry_at if self._late else None)

    def _due(self) -> list[_Late]:
        """What is to be committed now, the most urgent stream first, each stream in its order."""
        now = asyncio.get_running_loop().time()
        fresh = [
            _Late(batch, now + self.deadline_s)
            for batch in self.buffer.take(everything=self._closing)
        ]
        if not fresh and self._late and now < self._retry_at and not self._closing:
            return []
        due, self._late = [*self._late, *fresh], []
        due.sort(key=lambda late: URGENCY[late.batch.stream])
        return due

    async def _commit(self, due: list[_Late]) -> None:
        """All in one transaction; where that fails, each alone, so that one costs no other."""
        async with self.lock:
            try:
                await self._seal([late.batch for late in due])
            except StoreError as error:
                if len(due) == 1:
                    await self._refused(due[0], error)
                    return
            else:
                return
            failed: set[Stream] = set()
            for late in due:
                if late.batch.stream in failed:
                    # It must not overtake the one before it.
                    self._late.append(late)
                    continue
                try:
                    await self._seal([late.batch])
                except StoreError as error:
                    failed.add(late.batch.stream)
                    await self._refused(late, error)

    async def _refused(self, late: _Late, error: StoreError) -> None:
        """Try again later, or give it up if its time is over."""
        now = asyncio.get_running_loop().time()
        self._enter(error)
        if isinstance(error, FullError):
            await self._relieve()
        if now < late.deadline and not self._closing:
            self._late.append(late)
            self._retry_at = now + RETRY_S
            return
        count = len(late.batch.tails)
        log.error("events_not_taken", error=str(error), events=count)
        self.refused_events += count
        if self.trouble is not None:
            refused = self.trouble.refused + count
            self.trouble = Trouble(self.trouble.reason, self.trouble.since, refused)
        self.buffer.release([late.batch])
        late.batch.done.set_exception(EmitError(f"the event could not be written: {error}"))

    async def _relieve(self) -> None:
        """The disk is full: give up the reserve and delivered history, nothing that is promised."""
        space = self._database.space

        def relieve(connection: sqlite3.Connection) -> None:
            space.give_up_reserve()
            space.drop_history(connection, self.at, RELIEF_BYTES)

        try:
            await self.write(relieve)
        except StoreError as error:
            log.debug("no_relief", error=str(error))

    async def _seal(self, batches: Sequence[Batch]) -> None:
        sealed = await self.write(lambda c: self._insert(c, batches))
        for segment in sealed:
            self.at.next[segment.stream] = segment.last + 1
        self._leave()
        self.buffer.release(batches)
        for batch in batches:
            batch.done.set_result(None)
        for segment in sealed:
            for listener in self._sealed_listeners:
                listener(segment)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`Database.run`, with what is acknowledged by then written down too."""
        if self.adrift:
            raise StoreError("the salvaged database could not be read yet")
        at = self.at

        def both(connection: sqlite3.Connection) -> tuple[T, dict[tuple[int, Stream], int]]:
            return work(connection), positions.save(connection, at)

        result, written = await self._database.run(both)
        at.saved |= written
        return result

    def _insert(self, connection: sqlite3.Connection, batches: Sequence[Batch]) -> list[Segment]:
        sealed: list[Segment] = []
        following = dict(self.at.next)
        for batch in batches:
            for start, end in batch.cuts():
                segment = seal(
                    stream=batch.stream,
                    epoch=self.at.epoch,
                    first=following[batch.stream],
                    tails=batch.tails[start:end],
                    times=(batch.times[start], batch.times[end - 1]),
                )
                self._database.space.make_room(
                    connection, self.at, len(segment.payload), batch.stream
                )
                segments.insert(connection, segment, synced=batch.synced)
                following[batch.stream] = segment.last + 1
                sealed.append(segment)
            for also in batch.also:
                also(connection)
        return sealed

    # -- trouble -----------------------------------------------------------------------------

    def _enter(self, error: StoreError) -> None:
        before = self.trouble
        if before is not None and before.reason == str(error):
            return
        if before is None:
            log.error("cannot_write", error=str(error))
        since = self._clock.stamp().wall if before is None else before.since
        self.trouble = Trouble(str(error), since, before.refused if before else 0)
        for listener in self._trouble_listeners:
            listener(before, self.trouble)

    def _leave(self) -> None:
        before, self.trouble = self.trouble, None
        if before is None:
            return
        log.warning("can_write_again", refused_events=before.refused)
        for listener in self._trouble_listeners:
            listener(before, None)
