"""The outbox: events are sealed into segments, committed together, and kept until acknowledged.

`emit` returns after the commit that holds the event: from then on it is promised (DESIGN section
2). Events that arrive within a stream's commit window share one segment and one fsync. One sealer
assigns the sequence numbers, so that the order of segments is the order of `emit`.

An *edge* is a row id, epoch << 44 | sequence; see `nexus_agent.store.positions`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import (
    MAX_EPOCH,
    Ack,
    ProtocolError,
    Segment,
    SegmentError,
    Stream,
    encode_events,
    seal,
    verify,
)
from nexus_agent.store import ledger, positions, segments
from nexus_agent.store.buffer import SEGMENT_BYTES, SEGMENT_EVENTS, Also, Batch, Buffer
from nexus_agent.store.database import Database, StoreError
from nexus_agent.store.positions import Positions

log = structlog.get_logger("outbox")

COMMIT_DEADLINE_S: Final = 10.0
"""How long a failing commit is tried again before those who wait for it are told."""
_RETRY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What waits in one stream. oldest: wall time (ns) of the oldest event that waits, or None.

    next and acknowledged are sequences of the open epoch; what waits is of every epoch.
    """

    stream: Stream
    next: int
    acknowledged: int
    pending_events: int
    pending_segments: int
    pending_bytes: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """Bytes of database, write-ahead log and reserve, and their limit.

    trouble: why nothing can be written at the moment, None where all is well; since: wall time (ns)
    when it began; refused_events: how many events were not taken since the start, for any reason.
    """

    used_bytes: int
    quota_bytes: int
    trouble: str | None
    since: int | None
    refused_events: int = 0


class Outbox:
    """Call `open`, then keep `run` running; everything else may be called at any time."""

    def __init__(
        self,
        database: Database,
        device: str,
        clock: Clock,
        *,
        deadline_s: float = COMMIT_DEADLINE_S,
    ) -> None:
        self._database = database
        self._device = device
        self._clock = clock
        self._deadline_s = deadline_s
        self._buffer = Buffer()
        self._closing = False
        self._sealing = asyncio.Lock()
        self._at = Positions(epoch=0)
        self._listeners: list[Callable[[Segment], None]] = []
        self.refused_acknowledgements = 0

    async def open(self) -> None:
        """Read where every stream stands. A new database begins with epoch 1."""
        opened = self._clock.stamp().wall
        self._at = await self._database.run(lambda c: positions.load(c, opened))
        self._clock.raise_floor(self._at.newest_time)

    @property
    def epoch(self) -> int:
        """The open epoch."""
        return self._at.epoch

    @property
    def positions(self) -> Positions:
        """Where every stream of every epoch stands; to be read only."""
        return self._at

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

        *also* is written with the last of them. Raises EmitError when they could not be made so:
        then none of what it names is promised, and *also* left no trace. Raises ProtocolError for
        what is not an event; then nothing is taken.
        """
        tails, stamp = self._encode(source, events)
        batches: list[Batch] = []
        for part in _parts(tails):
            await self._buffer.space()
            batch = self._add(stream, part, stamp)
            batch.promised += len(part)
            if not batches or batches[-1] is not batch:
                batches.append(batch)
        if also is not None:
            batches[-1].also.append(also)
        for batch in batches:
            await asyncio.shield(batch.done)

    def hand_over(self, source: str, event_type: str, data: Any, stream: Stream) -> None:
        """Take one event without a promise. EmitError when too much waits to be committed."""
        if not self._buffer.has_space:
            raise EmitError("the box cannot write events as fast as they come; this one is dropped")
        tails, stamp = self._encode(source, [(event_type, data)])
        self._add(stream, tails, stamp)

    def _encode(self, source: str, events: Sequence[tuple[str, Any]]) -> tuple[list[bytes], Any]:
        stamp = self._clock.stamp()
        tails = encode_events(device=self._device, source=source, stamp=stamp, events=events)
        if not tails:
            raise ProtocolError("no event was given")
        return tails, stamp

    def _add(self, stream: Stream, tails: Sequence[bytes], stamp: Any) -> Batch:
        if self._closing:
            raise EmitError("the agent is stopping; the event is not taken")
        return self._buffer.add(stream, tails, stamp.wall, synced=stamp.synced)

    # -- sealing -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Seal and commit batches as they fall due, until `close`."""
        while not self._closing or self._buffer:
            due = self._buffer.take(everything=self._closing)
            if due:
                await self._commit(due)
            else:
                await self._buffer.until_due()

    async def _commit(self, batches: list[Batch]) -> None:
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        while True:
            try:
                async with self._sealing:
                    sealed = await self._database.run(lambda c: self._write(c, batches))
                    for segment in sealed:
                        self._at.next[segment.stream] = segment.last + 1
                break
            except StoreError as error:
                if asyncio.get_running_loop().time() > deadline or self._closing:
                    self._fail(batches, error)
                    return
                log.warning("commit_failed", error=str(error), events=_count(batches))
                await asyncio.sleep(_RETRY_S)
        self._buffer.release(batches)
        for batch in batches:
            batch.done.set_result(None)
        for segment in sealed:
            for listener in self._listeners:
                listener(segment)

    def _write(self, connection: sqlite3.Connection, batches: list[Batch]) -> list[Segment]:
        sealed: list[Segment] = []
        following = dict(self._at.next)
        for batch in batches:
            for start, end in batch.cuts():
                segment = seal(
                    stream=batch.stream,
                    epoch=self.epoch,
                    first=following[batch.stream],
                    tails=batch.tails[start:end],
                    times=(batch.times[start], batch.times[end - 1]),
                )
                segments.insert(connection, segment, synced=batch.synced)
                following[batch.stream] = segment.last + 1
                sealed.append(segment)
            for also in batch.also:
                also(connection)
        return sealed

    def _fail(self, batches: list[Batch], error: StoreError) -> None:
        log.error("events_not_taken", error=str(error), events=_count(batches))
        self._buffer.release(batches)
        for batch in batches:
            batch.done.set_exception(EmitError(f"the event could not be written: {error}"))

    def on_sealed(self, listener: Callable[[Segment], None]) -> None:
        """Have *listener* called for every segment once it is committed."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Take nothing more; `run` ends once what was taken is committed."""
        self._closing = True
        self._buffer.wake()

    # -- out ---------------------------------------------------------------------------------

    def position(self, stream: Stream) -> tuple[int, int]:
        """(last acknowledged, next) sequence of *stream* in the open epoch."""
        return self._at.reached(stream, self.epoch), self._at.next[stream]

    def released(self, stream: Stream) -> int:
        """The edge up to which nothing of *stream* waits, in this epoch and in all before it."""
        return self._at.released(stream)

    def newest(self, stream: Stream) -> int:
        """The edge of the newest sealed event of *stream*."""
        return self._at.newest(stream)

    def sent(self, stream: Stream, edge: int) -> None:
        """The sender has taken everything up to *edge*: only what is behind it may be re-sealed."""
        self._at.sent[stream] = max(self._at.sent[stream], edge)

    async def after(self, stream: Stream, edge: int, limit: int) -> list[Segment]:
        """At most *limit* segments that wait and begin behind *edge*, oldest first, of one epoch.

        A segment that is damaged on the disk is none of them; its loss is declared.
        """
        for first, last in self._at.waiting(stream):
            span = max(first, edge + 1), last
            rows = await self._database.read(segments.WITHIN[stream], (*span, limit))
            if found := await self._sound(stream, rows):
                return found
        return []

    async def held(
        self, stream: Stream, epoch: int, first: int, last: int, limit: int
    ) -> list[Segment]:
        """At most *limit* segments here, delivered or not, with a sequence of first to last."""
        start = segments.row_id(epoch, first)
        rows = await self._database.read(segments.CONTAINING[stream], (start,))
        if rows[0][0] is not None and rows[0][0] >= segments.row_id(epoch, 1):
            start = rows[0][0]
        rows = await self._database.read(
            segments.WITHIN[stream], (start, segments.row_id(epoch, last), limit)
        )
        return [s for s in await self._sound(stream, rows) if s.last >= first]

    async def _sound(self, stream: Stream, rows: Iterable[Any]) -> list[Segment]:
        """The segments of *rows* whose bytes are what was sealed."""
        found: list[Segment] = []
        for row in rows:
            segment = segments.from_row(stream, row)
            try:
                verify(segment)
            except SegmentError as error:
                log.warning("segment_damaged", error=str(error))
                await self._drop_damaged(segment)
                continue
            found.append(segment)
        return found

    async def _drop_damaged(self, segment: Segment) -> None:
        entry = ledger.Entry(
            segment.stream,
            segment.epoch,
            segment.first,
            segment.last,
            segment.first_time,
            segment.last_time,
            ledger.DAMAGED,
        )

        def drop(connection: sqlite3.Connection) -> None:
            ledger.write(connection, entry)
            edge = segments.row_id(segment.epoch, segment.first)
            connection.execute(segments.DELETE[segment.stream], (edge, edge))

        await self._database.run(drop)

    async def acknowledge(self, ack: Ack) -> bool:
        """Release every segment up to *ack*; False if it says nothing new.

        A segment is released whole: one that is acknowledged in part waits for the rest.
        Raises ProtocolError for an acknowledgement beyond what was ever sealed, and counts it.
        """
        if not self._at.knows(ack.epoch) or ack.seq <= self._at.reached(ack.stream, ack.epoch):
            return False
        limit = self._at.limit(ack.stream, ack.epoch)
        if ack.seq > limit:
            self.refused_acknowledgements += 1
            raise ProtocolError(
                f"acknowledgement of {ack.stream} {ack.epoch}/{ack.seq} is refused: "
                f"only {limit} were ever sealed"
            )
        reached = await self._database.run(lambda c: _set_position(c, ack))
        if reached <= self._at.reached(ack.stream, ack.epoch):
            return False
        self._at.acknowledged.setdefault(ack.epoch, {})[ack.stream] = reached
        return True

    async def declare_gone(
        self, stream: Stream, epoch: int, spans: Sequence[tuple[int, int]]
    ) -> None:
        """Tell the console that these sequences, which it asked for again, are not here any more.

        Raises ProtocolError for one that was never sealed.
        """
        limit = self._at.limit(stream, epoch)
        if any(not 1 <= first <= last <= limit for first, last in spans):
            raise ProtocolError(f"{stream} {epoch}: {list(spans)} is not within 1 to {limit}")
        entries = [
            ledger.Entry(stream, epoch, first, last, None, None, ledger.GONE)
            for first, last in spans
        ]

        def note(connection: sqlite3.Connection) -> None:
            for entry in entries:
                ledger.write(connection, entry)

        await self._database.run(note)

    async def renew(self, reason: str, above: int = 0) -> None:
        """Close the open epoch and begin one above it and above *above*.

        What waits stays under its old numbers and is sent on. ProtocolError past the last epoch.
        """
        async with self._sealing:
            number = max(self.epoch, above) + 1
            if number > MAX_EPOCH:
                raise ProtocolError(f"epoch {number} is beyond the last one, {MAX_EPOCH}")
            old, final = self.epoch, {s: self._at.next[s] - 1 for s in Stream}
            opened = self._clock.stamp().wall

            def turn(connection: sqlite3.Connection) -> Positions:
                positions.close_epoch(connection, old, final)
                positions.open_epoch(connection, number, opened, reason)
                return positions.load(connection, opened)

            sent = self._at.sent
            self._at = await self._database.run(turn)
            self._at.sent = sent
        log.warning("new_epoch", epoch=number, reason=reason)

    async def storage(self) -> StorageStatus:
        """What the outbox takes on the disk, and whether it can write."""
        pages = (await self._database.read("PRAGMA page_count"))[0][0]
        size = (await self._database.read("PRAGMA page_size"))[0][0]
        return StorageStatus(used_bytes=pages * size, quota_bytes=0, trouble=None, since=None)

    async def status(self) -> list[StreamStatus]:
        """How much waits in each stream."""
        found: list[StreamStatus] = []
        for stream in Stream:
            acknowledged, following = self.position(stream)
            count, events, size, oldest = 0, 0, 0, None
            for span in self._at.waiting(stream):
                row = (await self._database.read(segments.PENDING[stream], span))[0]
                count, events, size = count + row[0], events + int(row[1]), size + int(row[2])
                oldest = row[3] if oldest is None else oldest
            found.append(StreamStatus(stream, following, acknowledged, events, count, size, oldest))
        return found

    async def trim(self, *, hours: float, megabytes: float) -> None:
        """Forget acknowledged segments beyond what the history may keep, oldest first."""
        horizon = self._clock.stamp().wall - int(hours * 3600 * 1_000_000_000)
        share = int(megabytes * 1_000_000 / len(Stream))
        for stream in Stream:
            rows = await self._database.read(
                segments.HISTORY_BYTES[stream], (self._at.released(stream),)
            )
            kept = 0
            for identity, last_time, size in rows:
                kept += size
                if last_time < horizon or kept > share:
                    await self._database.run(partial(_forget, stream, identity))
                    break


def _set_position(connection: sqlite3.Connection, ack: Ack) -> int:
    """Store how far whole segments are acknowledged, never less than before; return it."""
    span = segments.row_id(ack.epoch, 1), segments.row_id(ack.epoch, ack.seq)
    row = connection.execute(segments.LAST[ack.stream], span).fetchone()
    whole = ack.seq if row is None or row[1] <= ack.seq else segments.sequence(row[0]) - 1
    stored = connection.execute(
        "INSERT INTO position (epoch, stream, acknowledged) VALUES (?,?,?) "
        "ON CONFLICT (epoch, stream) DO UPDATE "
        "SET acknowledged=max(acknowledged, excluded.acknowledged) RETURNING acknowledged",
        (ack.epoch, ack.stream, whole),
    ).fetchone()
    return int(stored[0])


def _forget(stream: Stream, through: int, connection: sqlite3.Connection) -> None:
    connection.execute(segments.DELETE[stream], (0, through))


def _parts(tails: list[bytes]) -> Iterable[list[bytes]]:
    """*tails* in runs that fit into one segment each, so that no batch grows without bound."""
    start = size = 0
    for end, tail in enumerate(tails):
        if end - start == SEGMENT_EVENTS or (end > start and size + len(tail) > SEGMENT_BYTES):
            yield tails[start:end]
            start, size = end, 0
        size += len(tail)
    yield tails[start:] if start else tails


def _count(batches: list[Batch]) -> int:
    return sum(len(batch.tails) for batch in batches)
