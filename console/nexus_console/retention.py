"""What becomes too old is deleted, the oldest first, a little at a time.

Marks stay for ever: `streams`, `ranges` and `losses` are what the console has promised to boxes.
Events are old by when they came here, never by a box's clock, and go only after `rollups` has
summed them up and cars' histories have taken what they say.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Self

from sqlalchemy import (
    Column,
    Connection,
    Row,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from nexus_agent.protocol import Stream
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    CLOCKS,
    STREAM_CODES,
    blocks,
    events,
    rollup_marks,
    segments,
    series,
    series_hour,
    series_minute,
    streams,
    type_spans,
    untimed,
    vehicle_marks,
)

DAY: Final = 86_400 * 1_000_000_000
LONGEST_S: Final = 0.04
"""What a transaction should take at most: ingest waits for it."""
FEWEST_ROWS: Final = 50
MOST_ROWS: Final = 2_500
PERIODS: Final = 2_000
"""Rows of minutes or hours that one transaction deletes."""

_OF_EVENTS: Final[list[Column[Any]]] = [
    events.c.position,
    events.c.epoch,
    events.c.seq,
    events.c.type,
    events.c.received,
    events.c.clock,
]
_UNKNOWN: Final = CLOCKS.index("unknown")


@dataclass(slots=True)
class Deleted:
    """Rows that are gone: events, and readings of a minute and of an hour."""

    events: int = 0
    minutes: int = 0
    hours: int = 0

    def __add__(self, other: Deleted) -> Deleted:
        return Deleted(
            self.events + other.events, self.minutes + other.minutes, self.hours + other.hours
        )


def turn(database: Database, settings: RetentionSettings, now: int) -> Iterator[Deleted]:
    """Delete what is too old at *now* (ns since 1970).

    Says after each transaction what it deleted, and nothing after each box: who stops there leaves
    the rest to the next turn.
    """
    days = {
        Stream.TELEMETRY: settings.raw_days,
        Stream.LOG: settings.raw_days,
        Stream.EVENT: settings.event_days,
        Stream.ALERT: settings.event_days,
    }
    told = func.coalesce(vehicle_marks.c.position, 0)
    marks = select(rollup_marks.c.device_id, rollup_marks.c.position, told).join_from(
        rollup_marks,
        vehicle_marks,
        rollup_marks.c.device_id == vehicle_marks.c.device_id,
        isouter=True,
    )
    with database.read() as connection:
        found = connection.execute(marks).all()
    for device_id, rolled_up, in_histories in found:
        for stream, kept in days.items():
            if kept:
                code = STREAM_CODES[stream]
                done = min(rolled_up, in_histories) if stream is Stream.EVENT else rolled_up
                for count in _raw(database, device_id, code, done, now - kept * DAY):
                    yield Deleted(events=count)
        yield Deleted()
    if settings.minute_days:
        for count in _periods(database, series_minute, now - settings.minute_days * DAY):
            yield Deleted(minutes=count)
    if settings.hour_days:
        for count in _periods(database, series_hour, now - settings.hour_days * DAY):
            yield Deleted(hours=count)


def _raw(
    database: Database, device_id: int, stream: int, rolled_up: int, before: int
) -> Iterator[int]:
    """Delete a stream's events that came before *before*, from the oldest to the first younger."""
    oldest = (
        select(*_OF_EVENTS)
        .where(
            events.c.device_id == device_id,
            events.c.stream == stream,
            events.c.position <= rolled_up,
        )
        .order_by(events.c.position)
    )
    # One row tells that there is nothing to do, which is what nearly every look finds.
    with database.read() as connection:
        first = connection.execute(oldest.limit(1)).one_or_none()
    size = FEWEST_ROWS
    while first is not None and first.received < before:
        with database.read() as connection:
            found = connection.execute(oldest.limit(size)).all()
        old = list(takewhile(lambda row: row.received < before, found))
        if not old:
            return
        part = _Part.of(device_id, stream, old)
        began = time.monotonic()
        with database.write() as connection:
            _delete(connection, part)
        took = time.monotonic() - began
        yield len(old)
        if len(old) < size:
            return
        size = _next_size(size, took)


def _next_size(size: int, took: float) -> int:
    if took > LONGEST_S:
        return max(FEWEST_ROWS, size // 2)
    return min(MOST_ROWS, size * 2) if took < LONGEST_S / 3 else size


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbours that are a stream's oldest events; read through before ingest has to wait."""

    device_id: int
    stream: int
    first: int
    last: int
    positions: dict[str, list[int]]
    """By type, ascending."""
    newest: dict[int, int]
    """By epoch, the last sequence."""
    unknown: bool
    """Whether the clock of any is not known."""

    @classmethod
    def of(cls, device_id: int, stream: int, rows: Sequence[Row[Any]]) -> Self:
        positions: dict[str, list[int]] = {}
        newest: dict[int, int] = {}
        unknown = False
        for row in rows:
            positions.setdefault(row.type, []).append(row.position)
            newest[row.epoch] = max(newest.get(row.epoch, 0), row.seq)
            unknown = unknown or row.clock == _UNKNOWN
        first, last = rows[0].position, rows[-1].position
        return cls(device_id, stream, first, last, positions, newest, unknown)


def _delete(connection: Connection, part: _Part) -> None:
    """Delete the events, and what only tells of them."""
    # As ingest does it: on PostgreSQL it may be about to add to a span that is empty from now on.
    lanes = connection.execute(
        select(streams.c.id, streams.c.epoch)
        .where(streams.c.device_id == part.device_id, streams.c.stream == part.stream)
        .order_by(streams.c.id)
        .with_for_update()
    ).all()
    connection.execute(
        delete(events).where(
            events.c.device_id == part.device_id,
            events.c.stream == part.stream,
            events.c.position.between(part.first, part.last),
        )
    )
    connection.execute(
        delete(blocks).where(
            blocks.c.device_id == part.device_id,
            blocks.c.stream == part.stream,
            blocks.c.first <= part.last,
            blocks.c.last <= part.last,
        )
    )
    _cut_spans(connection, part)
    _drop_segments(connection, part, {lane.id: lane.epoch for lane in lanes})
    if part.unknown:
        connection.execute(
            delete(untimed).where(
                untimed.c.device_id == part.device_id,
                untimed.c.stream == part.stream,
                untimed.c.position <= part.last,
            )
        )


def _cut_spans(connection: Connection, part: _Part) -> None:
    """Delete the spans that are empty now, and count down those that are not."""
    begun = and_(
        type_spans.c.device_id == part.device_id,
        type_spans.c.type.in_(part.positions),
        type_spans.c.stream == part.stream,
        type_spans.c.first <= part.last,
    )
    connection.execute(delete(type_spans).where(begun, type_spans.c.last <= part.last))
    for span in connection.execute(select(type_spans).where(begun)).all():
        of_type = part.positions[span.type]
        gone = len(of_type) - bisect_left(of_type, span.first)
        connection.execute(
            update(type_spans)
            .where(begun, type_spans.c.type == span.type, type_spans.c.first == span.first)
            .values(count=type_spans.c.count - gone)
        )


def _drop_segments(connection: Connection, part: _Part, lanes: dict[int, int]) -> None:
    """Forget the segments all of whose events are gone. lanes: epochs by the id in `streams`.

    What is looked through are the segments that begin below the newest sequence deleted: the key
    holds sequences, and those of older events went with them.
    """
    # The last one of its events, if all of them were new.
    end = segments.c.position + segments.c.last - segments.c.first
    for stream_id, epoch in lanes.items():
        sequence = part.newest.get(epoch, 0)
        repeat = and_(segments.c.position.is_(None), segments.c.last <= sequence)
        connection.execute(
            delete(segments).where(
                segments.c.stream_id == stream_id,
                segments.c.first <= sequence,
                or_(end <= part.last, repeat),
            )
        )


def _periods(database: Database, table: Table, before: int) -> Iterator[int]:
    """Delete the rows of *table* whose period began before *before*."""
    old = exists().where(table.c.series_id == series.c.id, table.c.start < before)
    with database.read() as connection:
        waiting = list(connection.execute(select(series.c.id).where(old)).scalars())
    # Oldest first within each series; the series themselves in no order that matters.
    statement = delete(table).where(
        table.c.series_id == bindparam("of"), table.c.start <= bindparam("upto")
    )
    while waiting:
        parts, count = [], 0
        with database.read() as connection:
            while waiting and count < PERIODS:
                starts = connection.execute(
                    select(table.c.start)
                    .where(table.c.series_id == waiting[-1], table.c.start < before)
                    .order_by(table.c.start)
                    .limit(PERIODS - count)
                ).scalars()
                found = list(starts)
                if found:
                    parts.append({"of": waiting[-1], "upto": found[-1]})
                count += len(found)
                if count < PERIODS:
                    waiting.pop()
        if parts:
            with database.write() as connection:
                connection.execute(statement, parts)
            yield count
