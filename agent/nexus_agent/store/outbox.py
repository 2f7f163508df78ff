"""The outbox: events are sealed into segments, committed together, and kept until acknowledged.

`emit` returns after the commit that holds the event: from then on it is promised (DESIGN section
2). Events that arrive within a stream's commit window share one segment and one fsync. One sealer
assigns the sequence numbers, so that the order of segments is the order of `emit`.

An *edge* is a row id, epoch << 44 | sequence; see `nexus_agent.store.positions`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import (
    MAX_EPOCH,
    Ack,
    ProtocolError,
    Segment,
    Stamp,
    Stream,
    encode_events,
    format_time,
)
from nexus_agent.protocol.catalogue.box import StorageAlarm
from nexus_agent.store import guard, ledger, positions, segments, standing
from nexus_agent.store.buffer import Also, Batch, parts
from nexus_agent.store.database import Database
from nexus_agent.store.errors import DamagedError, StoreError
from nexus_agent.store.positions import Positions
from nexus_agent.store.reader import Reader
from nexus_agent.store.sealer import Sealer, Trouble
from nexus_agent.store.standing import StorageStatus, StreamStatus

T = TypeVar("T")

log = structlog.get_logger("outbox")

COMMIT_DEADLINE_S: Final = 10.0
"""How long a failing commit is tried again before those who wait for it are told."""
SOURCE: Final = "agent"


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
        self._folder = database.path.parent
        self._device = device
        self._clock = clock
        self._sealer = Sealer(database, clock, deadline_s)
        self._sealer.on_trouble(self._tell_trouble)
        self._reader = Reader(database)
        self._opened = asyncio.Event()
        self._epoch_listeners: list[Callable[[], None]] = []
        self.refused_acknowledgements = 0

    async def open(self) -> None:
        """Read where every stream stands. A new database begins with epoch 1."""
        opened = self._clock.stamp().wall
        known = await asyncio.to_thread(guard.read, self._folder)

        def load(connection: sqlite3.Connection) -> Positions:
            at = positions.load(connection, opened)
            return at if known is None else guard.reconcile(connection, at, known, opened)

        generation = self._database.generation
        try:
            self._sealer.at = await self._database.run(load)
        except DamagedError as error:
            await self._database.repair(error, generation)
            self._sealer.at = await self._database.run(load)
        self._clock.raise_floor(self._at.newest_time)
        if known is not None:
            self._clock.raise_floor(known.time)
        await self.remember()
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """Whether it is known where the streams stand."""
        return self._opened.is_set()

    async def opened(self) -> None:
        """Return once it is open."""
        await self._opened.wait()

    async def remember(self) -> None:
        """Write the guard file. A disk that refuses it is no reason to stop."""
        now = self._clock.stamp()
        floor = now.wall if now.synced else self._clock.floor
        try:
            await asyncio.to_thread(guard.write, self._folder, guard.of(self._at, floor))
        except OSError as error:
            log.warning("guard_not_written", error=error.strerror)

    async def heal(self) -> None:
        """If the database was found damaged, salvage it and go on. Raises StoreError.

        One that could only be opened for reading is opened anew.
        """
        await self._database.reopen()
        error, generation = self._database.damage, self._database.generation
        if error is None and not self._sealer.adrift:
            return
        async with self._sealer.lock:
            if error is not None:
                # Memory knows best how far the numbers have come; the file does not know what it
                # lost.
                await self.remember()
                await self._database.repair(error, generation)
                self._sealer.adrift = True
            # Acknowledgements that were not written down come again.
            await self.open()
            self._sealer.adrift = False
        self._tell_epoch()

    @property
    def _at(self) -> Positions:
        return self._sealer.at

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
    ) -> int:
        """Return once the (type, data) pairs, and what *also* writes, are durable.

        What it returns are the bytes of the events as JSON.
        *also* is written with the last of them. Raises EmitError when they could not be made so:
        then none of what it names is promised, and *also* left no trace. Raises ProtocolError for
        what is not an event; then nothing is taken.
        """
        tails, stamp = self._encode(source, events)
        batches: list[Batch] = []
        for part in parts(tails):
            await self._sealer.buffer.space()
            batch = self._add(stream, part, stamp)
            if not batches or batches[-1] is not batch:
                batches.append(batch)
        if also is not None:
            batches[-1].also.append(also)
        if len(batches) > 1:
            # Enough has come for segments of a good size: the rest need not wait for company.
            self._sealer.buffer.hurry(batches[-1])
        for batch in batches:
            await asyncio.shield(batch.done)
        return sum(map(len, tails))

    def hand_over(self, source: str, event_type: str, data: Any, stream: Stream) -> None:
        """Take one event without a promise. EmitError when too much waits to be committed."""
        self.hand_over_many(source, [(event_type, data)], stream)

    def hand_over_many(self, source: str, events: Sequence[tuple[str, Any]], stream: Stream) -> int:
        """Take all of the (type, data) pairs without a promise, or EmitError and none.

        Returns their bytes as JSON.
        """
        tails, stamp = self._encode(source, events)
        if not self._sealer.buffer.has_space:
            self._sealer.refused_events += len(tails)
            raise EmitError(
                "the box cannot write events as fast as they come: "
                f"{'this one is' if len(tails) == 1 else f'these {len(tails)} are'} dropped"
            )
        for part in parts(tails):
            self._add(stream, part, stamp)
        return sum(map(len, tails))

    def _encode(self, source: str, events: Sequence[tuple[str, Any]]) -> tuple[list[bytes], Stamp]:
        stamp = self._clock.stamp()
        tails = encode_events(device=self._device, source=source, stamp=stamp, events=events)
        if not tails:
            raise ProtocolError("no event was given")
        return tails, stamp

    def _add(self, stream: Stream, tails: Sequence[bytes], stamp: Stamp) -> Batch:
        if self._sealer.closing:
            raise EmitError("the agent is stopping; the event is not taken")
        return self._sealer.buffer.add(stream, tails, stamp.wall, synced=stamp.synced)

    async def run(self) -> None:
        """Seal and commit what comes in, until `close`."""
        await self._sealer.run()
        with suppress(StoreError):  # the console says it again
            await self.save()

    def on_sealed(self, listener: Callable[[Segment], None]) -> None:
        """Have *listener* called for every segment once it is committed."""
        self._sealer.on_sealed(listener)

    def on_trouble(self, listener: Callable[[Trouble | None, Trouble | None], None]) -> None:
        """Have *listener* called with the trouble before and now when it begins, or ends."""
        self._sealer.on_trouble(listener)

    def on_epoch(self, listener: Callable[[], None]) -> None:
        """Have *listener* called when a new epoch has begun."""
        self._epoch_listeners.append(listener)

    def _tell_epoch(self) -> None:
        for listener in self._epoch_listeners:
            listener()

    def be_patient(self, deadline_s: float) -> None:
        """From now on a failing commit is tried again for so many seconds."""
        self._sealer.deadline_s = deadline_s

    def close(self) -> None:
        """Take nothing more; `run` ends once what was taken is committed."""
        self._sealer.close()

    def _tell_trouble(self, before: Trouble | None, now: Trouble | None) -> None:
        """What could not be told while it lasted is told after it, if it cost anything."""
        if before is None or now is not None or self._sealer.closing or not before.refused:
            return
        data = StorageAlarm(
            reason=before.reason,
            since=format_time(before.since),
            until=format_time(self._clock.stamp().wall),
            refused_events=before.refused,
        )
        try:
            self.hand_over(SOURCE, data.type, data.document(), Stream.ALERT)
        except EmitError as error:
            log.warning("alarm_untold", error=str(error))

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
        """The sender has taken everything up to *edge*: only what is behind it may be re-sealed.

        It says so at once after `after`, without giving way in between.
        """
        self._at.sent[stream] = max(self._at.sent[stream], edge)

    def reading(self, stream: Stream) -> asyncio.Lock:
        """Held by whoever reads the segments of *stream* and relies on their bounds."""
        return self._reader.lock(stream)

    async def after(self, stream: Stream, edge: int, limit: int) -> list[Segment]:
        """At most *limit* segments that wait and begin behind *edge*, oldest first, of one epoch.

        A segment that is damaged on the disk is none of them; its loss is declared.
        """
        async with self._reader.lock(stream):
            for first, last in self._at.waiting(stream):
                span = max(first, edge + 1), last
                if found := await self._reader.sound(stream, span, limit):
                    return found
        return []

    async def held(
        self, stream: Stream, epoch: int, first: int, last: int, limit: int
    ) -> list[Segment]:
        """At most *limit* segments here, delivered or not, with a sequence of first to last."""
        return await self._reader.held(stream, epoch, first, last, limit)

    async def acknowledge(self, ack: Ack) -> bool:
        """Release every segment up to *ack*; False if it says nothing new.

        A segment is released whole: one that is acknowledged in part waits for the rest. What was
        not sent since the start cannot have arrived: such an acknowledgement was meant for the box
        before a crash, to which it comes again, or for another disk with the same numbers.
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
        at, span = self._at, (segments.row_id(ack.epoch, 1), segments.row_id(ack.epoch, ack.seq))
        rows = await self._database.read(segments.LAST[ack.stream], span)
        # Numbers that are lost have no segment here, and are acknowledged without being sent.
        if rows and rows[0][0] > at.sent[ack.stream]:
            return False
        whole = ack.seq
        if rows and rows[0][1] > ack.seq:
            whole = segments.sequence(rows[0][0]) - 1
        if whole <= at.reached(ack.stream, ack.epoch):
            return False
        at.acknowledged.setdefault(ack.epoch, {})[ack.stream] = whole
        return True

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in a transaction that also writes down what is acknowledged by then."""
        return await self._sealer.write(work)

    async def save(self) -> None:
        """Write down what is acknowledged, if the disk does not know it. Raises StoreError."""
        if self._at.unsaved():
            await self.write(lambda _: None)

    async def declare_gone(
        self, stream: Stream, epoch: int, spans: Sequence[tuple[int, int]]
    ) -> list[Segment]:
        """Tell the console that these sequences, which it asked for again, are not here any more.

        The alerts that tell of it are returned, as far as they could be written now. Raises
        ProtocolError for one that was never sealed.
        """
        limit = self._at.limit(stream, epoch)
        if any(not 1 <= first <= last <= limit for first, last in spans):
            raise ProtocolError(f"{stream} {epoch}: {list(spans)} is not within 1 to {limit}")

        def note(connection: sqlite3.Connection) -> None:
            for span in spans:
                if stream is Stream.ALERT:
                    edges = (segments.row_id(epoch, seq) for seq in span)
                    ledger.untell_over(connection, *edges)
                for first, last in ledger.tell_again(connection, stream, epoch, *span):
                    entry = ledger.Entry(stream, epoch, first, last, None, None, ledger.GONE)
                    ledger.write(connection, entry)

        await self._database.run(note)
        try:
            await self.report_losses()
        except (StoreError, EmitError) as error:
            log.warning("losses_untold", error=str(error))  # housekeeping tells of them
        return await self._told_by(stream, epoch, spans)

    async def _told_by(
        self, stream: Stream, epoch: int, spans: Sequence[tuple[int, int]]
    ) -> list[Segment]:
        """The alerts that tell of losses within *spans*."""
        found: dict[int, Segment] = {}
        for first, last in spans:
            span = stream, epoch, last, first
            for (edge,) in await self._database.read(ledger.TOLD_BY, span):
                at = segments.epoch_of(edge), segments.sequence(edge)
                for alert in await self.held(Stream.ALERT, *at, at[1], 1):
                    found[edge] = alert
        return [found[edge] for edge in sorted(found)]

    async def report_losses(self) -> int:
        """Tell the console of losses that it does not know of; how many there were.

        Raises StoreError or EmitError where the box cannot write; they are told later.
        """
        rows = await self._database.run(lambda c: ledger.untold(c, _LOSSES_AT_ONCE))
        if rows:
            told = [(identity, entry.last) for identity, entry in rows]
            await self.emit(
                SOURCE,
                [("delivery.loss", entry.document()) for _, entry in rows],
                Stream.ALERT,
                also=lambda c: ledger.mark_told(told, c),
            )
        return len(rows)

    async def renew(self, reason: str, above: int = 0) -> None:
        """Close the open epoch and begin one above it and above *above*.

        What waits stays under its old numbers and is sent on. ProtocolError past the last epoch.
        """
        async with self._sealer.lock:
            number = max(self.epoch, above) + 1
            if number > MAX_EPOCH:
                raise ProtocolError(f"epoch {number} is beyond the last one, {MAX_EPOCH}")
            old, final = self.epoch, {s: self._at.next[s] - 1 for s in Stream}
            opened, sent = self._clock.stamp().wall, self._at.sent

            def turn(connection: sqlite3.Connection) -> Positions:
                positions.save(connection, self._at)
                positions.close_epoch(connection, old, final)
                positions.open_epoch(connection, number, opened, reason)
                return positions.load(connection, opened)

            self._sealer.at = await self._database.run(turn)
            self._at.sent = sent
        log.warning("new_epoch", epoch=number, reason=reason)
        await self.remember()
        self._tell_epoch()

    # -- how it stands -----------------------------------------------------------------------

    async def storage(self) -> StorageStatus:
        """What the outbox takes on the disk, and whether it can write."""
        space, trouble = self._database.space, self._sealer.trouble
        damage = self._database.damage
        return StorageStatus(
            used_bytes=await asyncio.to_thread(space.used),
            quota_bytes=space.quota_bytes,
            trouble=str(damage) if damage else trouble.reason if trouble else None,
            since=trouble.since if trouble else None,
            refused_events=self._sealer.refused_events,
        )

    @property
    def trouble(self) -> Trouble | None:
        """Why nothing can be written at the moment; None where all is well."""
        return self._sealer.trouble

    async def losses(self, limit: int) -> list[tuple[ledger.Entry, bool]]:
        """The newest losses, and whether an event tells the console of each."""
        return [ledger.shown(row) for row in await self._database.read(ledger.NEWEST, (limit,))]

    async def lost_events(self) -> dict[str, int]:
        """How many events the loss ledger has by cause, of every cause that there is."""
        return dict.fromkeys(ledger.CAUSES, 0) | dict(await self._database.read(ledger.BY_CAUSE))

    async def oldest(self) -> int | None:
        """Wall time (ns) of the oldest event that waits; None where none does."""
        return await standing.oldest(self._database, self._at)

    async def status(self) -> list[StreamStatus]:
        """How much waits in each stream."""
        return [await standing.of(self._database, self._at, stream) for stream in Stream]


_LOSSES_AT_ONCE: Final = 100
