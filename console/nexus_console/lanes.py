"""Taking segments in, and telling how far each stream has come.

A *lane* is one (device, epoch, stream). It is read, changed and written back within one
transaction, so its marks and the events behind them are never apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, delete, insert, select, update

from nexus_agent.protocol import (
    MAX_WANTED,
    Lines,
    Loss,
    ProtocolError,
    Segment,
    Stream,
    parse_time,
    read_segment,
)
from nexus_console.db.engine import storable
from nexus_console.db.models import STREAM_CODES, losses, ranges, segments, streams
from nexus_console.eventlog import Device, EventLog
from nexus_console.ranges import Coverage, Doubts, Span, overlap, subtract
from nexus_console.repeats import (
    crc_of,
    is_aside,
    is_known,
    known_lines,
    set_segment_aside,
)

MAX_TIME: Final = 2**63 - 1
"""The latest time in ns that a 64-bit column holds, in the year 2262."""
_SHORT_IS_FLAT: Final = 400
"""Characters below which no line is nested too deep to be written: each level takes two."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What of a segment was stored: runs of its events. conflict: some had other content."""

    runs: list[Lines] = field(default_factory=list)
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A new epoch is ordered, above all that are known of the box; reason is for people."""

    reason: str
    above: int


class Lane:
    """One stream of one epoch of one device, open in a transaction.

    What came in another session than the box's present one may be another disk's under the same
    numbers. It is kept, and in doubt: not acknowledged before the present session has sent it too,
    or has said at its begin that it was acknowledged.

    news: whether the box should be told how far it has come. want and order go with that.
    """

    def __init__(
        self, connection: Connection, log: EventLog, device: Device, epoch: int, stream: Stream
    ) -> None:
        self.epoch, self.stream = epoch, stream
        self.news = False
        self.want: list[Span] = []
        self.order: Order | None = None
        self._connection, self._log, self._device = connection, log, device
        row = self._open()
        self._id: int = row.id
        self._received: int = row.received
        self._duplicates: int = row.duplicates
        self._conflicts: int = row.conflicts
        self._undecodable: int = row.undecodable
        self._closed: int | None = row.closed
        self._sealed: int = row.sealed
        stored = connection.execute(
            select(ranges.c.first, ranges.c.last).where(ranges.c.stream_id == self._id)
        )
        self._stored: list[Span] = [(first, last) for first, last in stored]
        self._coverage = Coverage(row.high_water, self._stored)
        self._doubts = Doubts((first, last) for first, last in orjson.loads(row.doubts or "[]"))
        self._before = self._values()
        self._taken: dict[Span, dict[str, int]] = {}

    @property
    def acknowledged(self) -> int:
        """All up to here is settled beyond doubt, as far as today's box has sealed it."""
        settled = min(self._coverage.high_water, self._sealed)
        return settled if self._doubts.first is None else min(settled, self._doubts.first - 1)

    @property
    def is_ahead(self) -> bool:
        """Whether more has come than today's box has ever sealed: its disk is another."""
        return self._coverage.highest > self._sealed

    def unsettled(self, last: int) -> list[Span]:
        """What of 1 to *last* has not come, or is in doubt, in order."""
        return sorted(self._coverage.missing(1, last) + self._doubts.up_to(last))

    def _open(self) -> Row[Any]:
        key = {
            "device_id": self._device.id,
            "epoch": self.epoch,
            "stream": STREAM_CODES[self.stream],
        }
        # On PostgreSQL the row lock keeps a second console out; SQLite has one writer anyway.
        found = self._connection.execute(
            select(streams).filter_by(**key).with_for_update()
        ).one_or_none()
        if found is not None:
            return found
        zero = dict.fromkeys(
            ("high_water", "received", "duplicates", "conflicts", "undecodable", "sealed"), 0
        )
        self._connection.execute(insert(streams).values(**key, **zero))
        return self._connection.execute(select(streams).filter_by(**key)).one()

    def take(self, segment: Segment, received: int, *, sure: bool = True) -> Taken:
        """Store what of *segment* is new, and what is other content than came before.

        sure: it comes from the box's present session.
        """
        self.news = True
        if sure:
            self._sealed = max(self._sealed, segment.last)
        parts = self._coverage.missing(segment.first, segment.last)
        whole = parts == [(segment.first, segment.last)]
        if not whole:
            parts = sorted(parts + self._late(segment.first, segment.last))
        self._weigh(segment.first, segment.last, parts, sure=sure)
        if not whole and self._is_repeat(segment):
            self._duplicates += segment.last - segment.first + 1
            # The box sends again and something before it is missing, or in doubt: it may have let
            # go of that while an older database was here. What it has not, it sends by itself.
            if sure:
                self.ask_for(self.unsettled(self._coverage.highest)[:MAX_WANTED])
            return Taken()
        try:
            lines = _read(segment)
        except ProtocolError as error:
            self._keep_undecodable(segment, str(error), received)
            return Taken()
        other = [] if whole else self._other_content(segment, lines, parts)
        self._coverage.add(segment.first, segment.last)
        new = [lines.part(*part) for part in parts]
        positions = [self._append(run, received) for run in new + other]
        if new:
            self._remember(segment, lines, positions[0])
        settled = sum(len(run.lines) for run in new)
        self._received += settled
        self._duplicates += len(lines.lines) - settled - len(other)
        if other:
            self._conflicts += 1
            text = f"{len(other)} of its events came before with other content"
            set_segment_aside(self._connection, self._id, "conflict", segment, text, received)
        return Taken(new + other, conflict=bool(other))

    def _weigh(self, first: int, last: int, new: list[Span], *, sure: bool) -> None:
        """First to last have come, *new* of them for the first time."""
        if sure:
            self._doubts.settle(first, last)
        elif new:
            for span in new:
                self._doubts.settle(*span)
            self._doubts.add(new)

    def lose(self, loss: Loss, received: int, *, sure: bool = True) -> None:
        """Take the box's word that a range will not come, as far as it has not come."""
        self.news = True
        if sure:
            self._sealed = max(self._sealed, loss.last)
        lost = self._coverage.add(loss.first, loss.last)
        self._weigh(loss.first, loss.last, lost, sure=sure)
        times = {loss.first: _time(loss.first_time), loss.last: _time(loss.last_time)}
        if lost:
            self._connection.execute(
                insert(losses),
                [
                    {
                        "stream_id": self._id,
                        "first": first,
                        "last": last,
                        "cause": storable(loss.cause),
                        "received": received,
                        "first_time": times.get(first),
                        "last_time": times.get(last),
                    }
                    for first, last in lost
                ],
            )

    def stands_at(self, last: int, released: int, *, anew: bool) -> None:
        """The box says that it has sealed up to *last* and will send what is above *released*.

        anew: in a new session, so that it may be another disk.
        """
        self._sealed = last if anew else max(self._sealed, last)
        if anew:
            self._doubts = Doubts(self._coverage.present(released + 1))

    def ask_for(self, spans: list[Span]) -> None:
        """Have the box send *spans* again, as far as today's box can have sealed them."""
        self.want = [
            (first, min(last, self._sealed)) for first, last in spans if first <= self._sealed
        ]
        self.news |= bool(spans)

    def order_epoch(self, order: Order) -> None:
        """Have the box begin a new epoch."""
        self.order = order
        self.news = True

    def close(self, last: int) -> None:
        """The box has ended this epoch; *last* is its final sequence here."""
        self._closed = last

    def save(self) -> None:
        """Write the marks back."""
        self._save_taken()
        before, after = set(self._stored), set(self._coverage.above)
        if gone := before - after:
            self._connection.execute(
                delete(ranges).where(
                    ranges.c.stream_id == self._id, ranges.c.first.in_([s[0] for s in gone])
                )
            )
        if come := after - before:
            self._connection.execute(
                insert(ranges),
                [{"stream_id": self._id, "first": s[0], "last": s[1]} for s in sorted(come)],
            )
        values = self._values()
        if values != self._before:
            self._connection.execute(update(streams).where(streams.c.id == self._id).values(values))

    def _values(self) -> dict[str, int | str | None]:
        return {
            "high_water": self._coverage.high_water,
            "received": self._received,
            "duplicates": self._duplicates,
            "conflicts": self._conflicts,
            "undecodable": self._undecodable,
            "closed": self._closed,
            "sealed": self._sealed,
            "doubts": orjson.dumps(self._doubts.spans).decode() if self._doubts.spans else None,
        }

    def _late(self, first: int, last: int) -> list[Span]:
        """What was declared lost within first to last and has come after all; no longer lost.

        A box drops from its disk what may still be on its way through the broker.
        """
        rows = self._connection.execute(
            select(losses).where(
                losses.c.stream_id == self._id, losses.c.first <= last, losses.c.last >= first
            )
        ).all()
        found: list[Span] = []
        for row in rows:
            common = overlap((row.first, row.last), first, last)
            if common is None:
                continue
            found.append(common)
            self._connection.execute(
                delete(losses).where(losses.c.stream_id == self._id, losses.c.first == row.first)
            )
            for part in subtract((row.first, row.last), common):
                kept = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's name for it
                kept |= {"first": part[0], "last": part[1]}
                if part[0] != row.first:
                    kept["first_time"] = None
                if part[1] != row.last:
                    kept["last_time"] = None
                self._connection.execute(insert(losses).values(kept))
        return found

    def _append(self, run: Lines, received: int) -> int:
        code = STREAM_CODES[self.stream]
        return self._log.append(self._device, code, self.epoch, run, received)

    def _is_repeat(self, segment: Segment) -> bool:
        """Whether this very segment has come before."""
        return self._crc(segment) == segment.crc or any(
            is_aside(self._connection, self._id, kind, segment)
            for kind in ("conflict", "undecodable")
        )

    def _crc(self, segment: Segment) -> int | None:
        taken = self._taken.get((segment.first, segment.last))
        return taken["crc"] if taken else crc_of(self._connection, self._id, segment)

    def _keep_undecodable(self, segment: Segment, reason: str, received: int) -> None:
        set_segment_aside(self._connection, self._id, "undecodable", segment, reason, received)
        self._undecodable += 1
        self._coverage.add(segment.first, segment.last)

    def _remember(self, segment: Segment, lines: Lines, position: int) -> None:
        """Note where the new events of *segment* are."""
        self._taken[segment.first, segment.last] = {
            "crc": segment.crc,
            "position": position,
            "last_time": max(lines.times),
        }

    def _save_taken(self) -> None:
        if self._taken:
            rows = [
                {"stream_id": self._id, "first": first, "last": last, **values}
                for (first, last), values in self._taken.items()
            ]
            self._connection.execute(insert(segments), rows)
            self._taken.clear()

    def _other_content(self, segment: Segment, lines: Lines, new: list[Span]) -> list[Lines]:
        """One by one, the events outside of *new* whose numbers came before with other content."""
        old = [(segment.first, segment.last)]
        for span in new:
            old = [part for piece in old for part in subtract(piece, span)]
        if not old:
            return []
        self._log.flush()
        crc = self._crc(segment)
        self._save_taken()
        known = known_lines(self._connection, self._device.id, self._id, segment)
        # Where nothing is left to compare with, another checksum tells.
        strange = not known and crc is not None
        return [
            lines.part(seq, seq)
            for first, last in old
            for seq, line in enumerate(lines.part(first, last).lines, first)
            if strange or (seq in known and not is_known(line, known[seq]))
        ]


def _read(segment: Segment) -> Lines:
    """`read_segment`, and ProtocolError for what decodes but cannot be stored or shown."""
    lines = read_segment(segment)
    for time in (min(lines.times), max(lines.times)):
        if abs(time) > MAX_TIME:
            raise ProtocolError(f"time {time} does not fit into 64 bits")
    for kind in set(lines.types):
        if "\0" in kind:
            raise ProtocolError(f"type {kind!r} holds NUL")
    if max(map(len, lines.lines)) > _SHORT_IS_FLAT and any(map(_is_too_deep, lines.lines)):
        raise ProtocolError("the data of an event is nested too deep to be shown")
    return lines


def _is_too_deep(line: str) -> bool:
    """Whether it is nested deeper than JSON is written here, though it could be read."""
    if line.count("[") + line.count("{") <= _SHORT_IS_FLAT // 2:
        return False
    try:
        orjson.dumps(orjson.loads(line)["data"])
    except orjson.JSONEncodeError:
        return True
    return False


def _time(text: str | None) -> int | None:
    """A box's time in ns; None where it did not say one that makes sense."""
    try:
        time = None if text is None else parse_time(text)
    except ProtocolError:
        return None
    return time if time is not None and abs(time) <= MAX_TIME else None
