"""Taking segments in, and telling how far each stream has come.

A *lane* is one (device, epoch, stream). It is read, changed and written back within one
transaction, so its marks and the events behind them are never apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from nexus_agent.protocol import Event, ProtocolError, Segment, Stream, open_segment
from nexus_console.db.models import (
    STREAM_CODES,
    STREAMS,
    losses,
    ranges,
    segments,
    set_aside,
    streams,
)
from nexus_console.ranges import Coverage, Span, overlap, subtract

MAX_TIME: Final = 2**63 - 1
"""The latest time in ns that a 64-bit column holds, in the year 2262."""
_DEPTH_THAT_IS_FINE: Final = 200


class Lane:
    """One stream of one epoch of one device, open in a transaction."""

    def __init__(self, connection: Connection, device_id: int, epoch: int, stream: Stream) -> None:
        self.epoch, self.stream = epoch, stream
        self._connection = connection
        row = self._open(device_id)
        self._id: int = row.id
        self._received: int = row.received
        self._duplicates: int = row.duplicates
        self._conflicts: int = row.conflicts
        self._undecodable: int = row.undecodable
        self._closed: int | None = row.closed
        stored = connection.execute(
            select(ranges.c.first, ranges.c.last).where(ranges.c.stream_id == self._id)
        )
        self._stored: list[Span] = [(first, last) for first, last in stored]
        self._coverage = Coverage(row.high_water, self._stored)

    @property
    def high_water(self) -> int:
        return self._coverage.high_water

    def _open(self, device_id: int) -> Row[Any]:
        key = {"device_id": device_id, "epoch": self.epoch, "stream": STREAM_CODES[self.stream]}
        # On PostgreSQL the row lock keeps a second console out; SQLite has one writer anyway.
        found = self._connection.execute(
            select(streams).filter_by(**key).with_for_update()
        ).one_or_none()
        if found is not None:
            return found
        zero = dict.fromkeys(
            ("high_water", "received", "duplicates", "conflicts", "undecodable"), 0
        )
        self._connection.execute(insert(streams).values(**key, **zero))
        return self._connection.execute(select(streams).filter_by(**key)).one()

    def take(self, segment: Segment, received: int) -> list[Event]:
        """Count *segment* in and return its events that were not here before."""
        new = self._coverage.missing(segment.first, segment.last)
        late = self._late(segment.first, segment.last) if segment.first <= self.high_water else []
        if not new and not late:
            self._repeat(segment, received)
            return []
        try:
            events = _open(segment)
        except ProtocolError as error:
            self._set_aside("undecodable", segment, str(error), received)
            self._undecodable += 1
            self._coverage.add(segment.first, segment.last)
            return []
        self._coverage.add(segment.first, segment.last)
        self._remember(segment)
        fresh = self._fresh(segment, events, sorted(new + late))
        self._received += len(fresh)
        self._duplicates += len(events) - len(fresh)
        return fresh

    def lose(self, first: int, last: int, cause: str, received: int) -> None:
        """Take the box's word that first to last will not come, as far as it has not come."""
        lost = self._coverage.add(first, last)
        if lost:
            self._connection.execute(
                insert(losses),
                [
                    {
                        "stream_id": self._id,
                        "first": part[0],
                        "last": part[1],
                        "cause": cause,
                        "received": received,
                    }
                    for part in lost
                ],
            )

    def close(self, last: int) -> None:
        """The box has ended this epoch; *last* is its final sequence here."""
        self._closed = last

    def save(self) -> None:
        """Write the marks back."""
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
        self._connection.execute(
            update(streams)
            .where(streams.c.id == self._id)
            .values(
                high_water=self._coverage.high_water,
                received=self._received,
                duplicates=self._duplicates,
                conflicts=self._conflicts,
                undecodable=self._undecodable,
                closed=self._closed,
            )
        )

    def _fresh(self, segment: Segment, events: list[Event], parts: list[Span]) -> list[Event]:
        if parts == [(segment.first, segment.last)]:
            return events
        return [
            event
            for first, last in parts
            for event in events[first - segment.first : last - segment.first + 1]
        ]

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
                kept = {**row._mapping, "first": part[0], "last": part[1]}  # noqa: SLF001
                self._connection.execute(insert(losses).values(kept))
        return found

    def _remember(self, segment: Segment) -> None:
        key = {"stream_id": self._id, "first": segment.first, "last": segment.last}
        if self._crc(segment) is None:
            self._connection.execute(insert(segments).values(**key, crc=segment.crc))

    def _crc(self, segment: Segment) -> int | None:
        return self._connection.execute(
            select(segments.c.crc).filter_by(
                stream_id=self._id, first=segment.first, last=segment.last
            )
        ).scalar_one_or_none()

    def _repeat(self, segment: Segment, received: int) -> None:
        """All of *segment* is here already: a retransmission, or other content in its place."""
        crc = self._crc(segment)
        if crc is None or crc == segment.crc:
            self._duplicates += segment.last - segment.first + 1
            return
        text = f"CRC {segment.crc:08x} came where {crc:08x} is stored"
        if self._set_aside("conflict", segment, text, received):
            self._conflicts += 1

    def _set_aside(self, kind: str, segment: Segment, text: str, received: int) -> bool:
        """Keep *segment* as it came; False if it is kept already."""
        key = {
            "stream_id": self._id,
            "kind": kind,
            "first": segment.first,
            "last": segment.last,
            "crc": segment.crc,
        }
        kept = select(func.count()).select_from(set_aside).filter_by(**key)
        if self._connection.execute(kept).scalar_one():
            return False
        self._connection.execute(
            insert(set_aside).values(**key, reason=text, payload=segment.payload, received=received)
        )
        return True


def _open(segment: Segment) -> list[Event]:
    """`open_segment`, and ProtocolError for what decodes but cannot be stored or shown."""
    events = open_segment(segment)
    for event in events:
        if abs(event.time) > MAX_TIME or "\0" in event.type or _is_too_deep(event):
            raise ProtocolError(f"event {event.seq}: its time, type or depth cannot be stored")
    return events


def _is_too_deep(event: Event) -> bool:
    """Whether its data is nested deeper than JSON is written here, though it could be read."""
    if event.raw.count(b"[") + event.raw.count(b"{") <= _DEPTH_THAT_IS_FINE:
        return False
    try:
        orjson.dumps(event.data)
    except orjson.JSONEncodeError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Loss:
    """A range that the box has declared lost, with its reason."""

    first: int
    last: int
    cause: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """What is known of a lane. gaps are what is missing below the highest number heard of."""

    epoch: int
    stream: Stream
    high_water: int
    received: int
    duplicates: int
    conflicts: int
    undecodable: int
    gaps: list[Span]
    losses: list[Loss]
    closed: bool


def lane_states(connection: Connection, device_id: int) -> list[LaneState]:
    """Every lane of a device, by epoch and then by urgency of the stream."""
    rows = connection.execute(
        select(streams)
        .where(streams.c.device_id == device_id)
        .order_by(streams.c.epoch, streams.c.stream)
    ).all()
    above = _by_lane(connection, ranges, device_id)
    lost = _by_lane(connection, losses, device_id)
    return [
        LaneState(
            epoch=row.epoch,
            stream=STREAMS[row.stream],
            high_water=row.high_water,
            received=row.received,
            duplicates=row.duplicates,
            conflicts=row.conflicts,
            undecodable=row.undecodable,
            gaps=Coverage(row.high_water, [(r.first, r.last) for r in above.get(row.id, [])]).gaps(
                until=row.closed or 0
            ),
            losses=[Loss(r.first, r.last, r.cause) for r in lost.get(row.id, [])],
            closed=row.closed is not None,
        )
        for row in rows
    ]


def _by_lane(connection: Connection, table: Any, device_id: int) -> dict[int, list[Row[Any]]]:
    rows = connection.execute(
        select(table)
        .join(streams, and_(streams.c.id == table.c.stream_id, streams.c.device_id == device_id))
        .order_by(table.c.stream_id, table.c.first)
    )
    found: dict[int, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.stream_id, []).append(row)
    return found
