"""The outbox: events are sealed into segments, committed together, and kept until acknowledged.

`emit` returns after the commit that holds the event: from then on it is promised (DESIGN section
2). Events that arrive within a stream's commit window share one segment and one fsync. One sealer
assigns the sequence numbers, so that the order of segments is the order of `emit`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import (
    MAX_SEQUENCE,
    Ack,
    ProtocolError,
    Segment,
    Stream,
    encode_events,
    seal,
)
from nexus_agent.store import segments
from nexus_agent.store.database import Database, StoreError

log = structlog.get_logger("outbox")

WINDOW_S: Final = {
    Stream.ALERT: 0.002,
    Stream.EVENT: 0.002,
    Stream.TELEMETRY: 1.0,
    Stream.LOG: 1.0,
}
"""How long the first event of a segment waits for company."""

SEGMENT_EVENTS: Final = 1000
SEGMENT_BYTES: Final = 512 * 1024
"""A segment is sealed at once when it has this many events or bytes before compression."""

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Bytes not yet committed above which `emit` waits and a hand-over is refused."""

COMMIT_DEADLINE_S: Final = 10.0
"""How long a failing commit is tried again before those who wait for it are told."""
_RETRY_S: Final = 0.2

Also = Callable[[sqlite3.Connection], object]
"""Work that must be committed in the very transaction that commits an event."""


@dataclass(slots=True)
class _Batch:
    """Events of one stream that will be committed together."""

    stream: Stream
    due: float
    done: asyncio.Future[None]
    tails: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    also: list[Also] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What waits in one stream. oldest: wall time (ns) of the oldest event that waits, or None."""

    stream: Stream
    next: int
    acknowledged: int
    pending_events: int
    pending_segments: int
    pending_bytes: int
    oldest: int | None


class Outbox:
    """Call `open`, then keep `run` running; everything else may be called at any time."""

    def __init__(self, database: Database, device: str, clock: Clock) -> None:
        self._database = database
        self._device = device
        self._clock = clock
        self._batches: dict[Stream, _Batch] = {}
        self._buffered = 0
        self._work = asyncio.Event()
        self._space = asyncio.Event()
        self._space.set()
        self._closing = False
        self._next = dict.fromkeys(Stream, 1)
        self._acknowledged = dict.fromkeys(Stream, 0)
        self._listeners: list[Callable[[Segment], None]] = []
        self.epoch = 0
        self.refused_acknowledgements = 0

    async def open(self) -> None:
        """Read where every stream stands. A new database begins with epoch 1."""
        opened = self._clock.stamp().wall
        self.epoch, newest = await self._database.run(lambda c: self._load(c, opened))
        self._clock.raise_floor(newest)

    def _load(self, connection: sqlite3.Connection, opened: int) -> tuple[int, int]:
        row = connection.execute("SELECT max(number) FROM epoch").fetchone()
        epoch: int = row[0] or 1
        if row[0] is None:
            connection.execute("INSERT INTO epoch VALUES (?,?,?)", (epoch, opened, "first start"))
        newest = 0
        for stream in Stream:
            found = connection.execute(
                "SELECT acknowledged FROM position WHERE epoch=? AND stream=?", (epoch, stream)
            ).fetchone()
            acknowledged = found[0] if found else 0
            last = connection.execute(
                segments.LAST[stream],
                (segments.row_id(epoch, 1), segments.row_id(epoch, MAX_SEQUENCE)),
            ).fetchone()
            self._acknowledged[stream] = acknowledged
            self._next[stream] = max(acknowledged, last[1] if last else 0) + 1
            newest = max(newest, last[2] if last else 0)
        return epoch, newest

    # -- in ----------------------------------------------------------------------------------

    async def emit(
        self,
        source: str,
        events: Sequence[tuple[str, Any]],
        stream: Stream,
        *,
        also: Also | None = None,
    ) -> None:
        """Return once the (type, data) pairs, and what *also* writes, are durable.

        Raises EmitError when they could not be made so: then none of it is promised, and *also*
        left no trace. Raises ProtocolError for what is not an event; then nothing is taken.
        """
        tails, wall = self._encode(source, events)
        while self._buffered >= BUFFER_BYTES:
            self._space.clear()
            await self._space.wait()
        batch = self._add(stream, tails, wall, also)
        await asyncio.shield(batch.done)

    def hand_over(self, source: str, event_type: str, data: Any, stream: Stream) -> None:
        """Take one event without a promise. EmitError when too much waits to be committed."""
        if self._buffered >= BUFFER_BYTES:
            raise EmitError("the box cannot write events as fast as they come; this one is dropped")
        tails, wall = self._encode(source, [(event_type, data)])
        self._add(stream, tails, wall, None)

    def _encode(self, source: str, events: Sequence[tuple[str, Any]]) -> tuple[list[bytes], int]:
        stamp = self._clock.stamp()
        tails = encode_events(device=self._device, source=source, stamp=stamp, events=events)
        if not tails:
            raise ProtocolError("no event was given")
        return tails, stamp.wall

    def _add(self, stream: Stream, tails: list[bytes], wall: int, also: Also | None) -> _Batch:
        if self._closing:
            raise EmitError("the agent is stopping; the event is not taken")
        batch = self._batches.get(stream)
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = _Batch(stream, loop.time() + WINDOW_S[stream], loop.create_future())
            # Nobody may be waiting for it, and its failure is logged where it happens.
            batch.done.add_done_callback(_retrieve)
            self._batches[stream] = batch
            self._work.set()
        size = sum(map(len, tails))
        batch.tails += tails
        batch.times += [wall] * len(tails)
        batch.size += size
        self._buffered += size
        if also is not None:
            batch.also.append(also)
        if len(batch.tails) >= SEGMENT_EVENTS or batch.size >= SEGMENT_BYTES:
            self._work.set()
        return batch

    # -- sealing -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Seal and commit batches as they fall due, until `close`."""
        while not self._closing or self._batches:
            self._work.clear()
            due = self._take_due()
            if due:
                await self._commit(due)
            elif self._batches:
                await self._until(min(batch.due for batch in self._batches.values()))
            else:
                await self._work.wait()

    def _take_due(self) -> list[_Batch]:
        now = asyncio.get_running_loop().time()
        due = [
            batch
            for batch in self._batches.values()
            if self._closing
            or batch.due <= now
            or len(batch.tails) >= SEGMENT_EVENTS
            or batch.size >= SEGMENT_BYTES
        ]
        for batch in due:
            del self._batches[batch.stream]
        return due

    async def _until(self, moment: float) -> None:
        try:
            async with asyncio.timeout_at(moment):
                await self._work.wait()
        except TimeoutError:
            return

    async def _commit(self, batches: list[_Batch]) -> None:
        deadline = asyncio.get_running_loop().time() + COMMIT_DEADLINE_S
        while True:
            try:
                sealed = await self._database.run(lambda c: self._write(c, batches))
                break
            except StoreError as error:
                if asyncio.get_running_loop().time() > deadline or self._closing:
                    self._fail(batches, error)
                    return
                log.warning("commit_failed", error=str(error), events=_count(batches))
                await asyncio.sleep(_RETRY_S)
        for segment in sealed:
            self._next[segment.stream] = segment.last + 1
        self._release(batches)
        for batch in batches:
            batch.done.set_result(None)
        for segment in sealed:
            for listener in self._listeners:
                listener(segment)

    def _write(self, connection: sqlite3.Connection, batches: list[_Batch]) -> list[Segment]:
        sealed: list[Segment] = []
        for batch in batches:
            first = self._next[batch.stream]
            for start, end in _cuts(batch.tails):
                segment = seal(
                    stream=batch.stream,
                    epoch=self.epoch,
                    first=first,
                    tails=batch.tails[start:end],
                    times=(batch.times[start], batch.times[end - 1]),
                )
                segments.insert(connection, segment)
                first = segment.last + 1
                sealed.append(segment)
            for also in batch.also:
                also(connection)
        return sealed

    def _fail(self, batches: list[_Batch], error: StoreError) -> None:
        log.error("events_not_taken", error=str(error), events=_count(batches))
        self._release(batches)
        for batch in batches:
            batch.done.set_exception(EmitError(f"the event could not be written: {error}"))

    def _release(self, batches: list[_Batch]) -> None:
        self._buffered -= sum(batch.size for batch in batches)
        if self._buffered < BUFFER_BYTES:
            self._space.set()

    def on_sealed(self, listener: Callable[[Segment], None]) -> None:
        """Have *listener* called for every segment once it is committed."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Take nothing more; `run` ends once what was taken is committed."""
        self._closing = True
        self._work.set()

    # -- out ---------------------------------------------------------------------------------

    def position(self, stream: Stream) -> tuple[int, int]:
        """(last acknowledged, next) sequence of *stream* in the open epoch."""
        return self._acknowledged[stream], self._next[stream]

    async def after(self, stream: Stream, seq: int, limit: int) -> list[Segment]:
        """At most *limit* segments of the open epoch that begin after *seq*, oldest first."""
        rows = await self._database.read(
            segments.NEXT[stream], (segments.row_id(self.epoch, seq), limit)
        )
        return [segments.from_row(stream, row) for row in rows]

    async def acknowledge(self, ack: Ack) -> bool:
        """Release every segment up to *ack*; False if it says nothing new.

        A segment is released whole: one that is acknowledged in part waits for the rest.
        Raises ProtocolError for an acknowledgement beyond what was ever sealed, and counts it.
        """
        if ack.epoch != self.epoch or ack.seq <= self._acknowledged[ack.stream]:
            return False
        if ack.seq >= self._next[ack.stream]:
            self.refused_acknowledgements += 1
            raise ProtocolError(
                f"acknowledgement of {ack.stream} {ack.epoch}/{ack.seq} is refused: "
                f"only {self._next[ack.stream] - 1} were ever sealed"
            )
        position = await self._database.run(lambda c: _set_position(c, ack))
        if position <= self._acknowledged[ack.stream]:
            return False
        self._acknowledged[ack.stream] = position
        return True

    async def trim(self, *, hours: float, megabytes: float) -> None:
        """Forget acknowledged segments beyond what the history may keep, oldest first."""
        horizon = self._clock.stamp().wall - int(hours * 3600 * 1_000_000_000)
        share = int(megabytes * 1_000_000 / len(Stream))
        for stream in Stream:
            through = segments.row_id(self.epoch, self._acknowledged[stream])
            rows = await self._database.read(segments.HISTORY_BYTES[stream], (through,))
            kept = 0
            for identity, last_time, size in rows:
                kept += size
                if last_time < horizon or kept > share:
                    await self._database.run(partial(_forget, stream, identity))
                    break

    async def status(self) -> list[StreamStatus]:
        """How much waits in each stream."""
        found: list[StreamStatus] = []
        for stream in Stream:
            acknowledged, following = self.position(stream)
            rows = await self._database.read(
                segments.PENDING[stream], (segments.row_id(self.epoch, acknowledged),)
            )
            count, events, size, oldest = rows[0]
            found.append(
                StreamStatus(stream, following, acknowledged, int(events), count, int(size), oldest)
            )
        return found


def _set_position(connection: sqlite3.Connection, ack: Ack) -> int:
    """Store how far whole segments are acknowledged, never less than before; return it."""
    span = segments.row_id(ack.epoch, 1), segments.row_id(ack.epoch, ack.seq)
    row = connection.execute(segments.LAST[ack.stream], span).fetchone()
    whole = ack.seq if row is None or row[1] <= ack.seq else (row[0] & MAX_SEQUENCE) - 1
    stored = connection.execute(
        "INSERT INTO position (epoch, stream, acknowledged) VALUES (?,?,?) "
        "ON CONFLICT (epoch, stream) DO UPDATE "
        "SET acknowledged=max(acknowledged, excluded.acknowledged) RETURNING acknowledged",
        (ack.epoch, ack.stream, whole),
    ).fetchone()
    return int(stored[0])


def _forget(stream: Stream, through: int, connection: sqlite3.Connection) -> None:
    connection.execute(segments.DELETE_THROUGH[stream], (through,))


def _cuts(tails: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where to cut a batch, so that no segment passes either limit (a lone event may)."""
    start = size = 0
    for end, tail in enumerate(tails):
        if end > start and (end - start == SEGMENT_EVENTS or size + len(tail) > SEGMENT_BYTES):
            yield start, end
            start, size = end, 0
        size += len(tail)
    yield start, len(tails)


def _count(batches: list[_Batch]) -> int:
    return sum(len(batch.tails) for batch in batches)


def _retrieve(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()
