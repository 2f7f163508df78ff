"""Telling a repeat from other content under the same numbers, and keeping what is not as usual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, Row, func, insert, select

from nexus_agent.protocol import MAX_SEGMENT_BYTES, Segment, Stream, read_segment
from nexus_console.blocks import with_lines
from nexus_console.db.models import STREAM_CODES, events, segments, set_aside
from nexus_console.vehicles.erased import is_erased_line

_LONGEST_SEGMENT: Final = MAX_SEGMENT_BYTES // 100
"""No segment has more events: a line with all its attributes is longer than 100 bytes."""


Kind: TypeAlias = Literal["undecodable", "conflict"]


def crc_of(connection: Connection, stream_id: int, segment: Segment) -> int | None:
    """CRC of the segment that came first under exactly these numbers."""
    return connection.execute(
        select(segments.c.crc).filter_by(
            stream_id=stream_id, first=segment.first, last=segment.last
        )
    ).scalar_one_or_none()


def is_aside(connection: Connection, stream_id: int, kind: Kind, segment: Segment) -> bool:
    """Whether this very segment has been set aside before."""
    kept = select(func.count()).select_from(set_aside).filter_by(**_key(stream_id, kind, segment))
    return bool(connection.execute(kept).scalar_one())


def set_segment_aside(
    connection: Connection,
    stream_id: int,
    kind: Kind,
    segment: Segment,
    reason: str,
    received: int,
) -> None:
    """Keep *segment* as it came."""
    connection.execute(
        insert(set_aside).values(
            **_key(stream_id, kind, segment),
            reason=reason,
            payload=segment.payload,
            received=received,
        )
    )


def is_known(line: str, known: set[str]) -> bool:
    """Whether an event came before, *known* being what is here under its number.

    Of one that was erased nobody can tell, and to take it for another would bring it back.
    """
    return line in known or any(map(is_erased_line, known))


def known_lines(
    connection: Connection, device_id: int, stream_id: int, segment: Segment
) -> dict[int, set[str]]:
    """By sequence, the lines within *segment*'s numbers that came before; not those of this turn.

    Nothing is told of events that retention has removed.
    """
    found: dict[int, set[str]] = {}
    for seq, line in _stored(connection, device_id, stream_id, segment):
        found.setdefault(seq, set()).add(line)
    rivals = connection.execute(
        select(set_aside).where(
            set_aside.c.stream_id == stream_id,
            set_aside.c.kind == "conflict",
            set_aside.c.first <= segment.last,
            set_aside.c.last >= segment.first,
        )
    ).all()
    for row in rivals:
        lines = read_segment(segment_of(row, segment.stream, segment.epoch)).lines
        for seq, line in enumerate(lines, row.first):
            found.setdefault(seq, set()).add(line)
    return found


def _stored(
    connection: Connection, device_id: int, stream_id: int, segment: Segment
) -> Iterator[tuple[int, str]]:
    overlapping = connection.execute(
        select(segments).where(
            segments.c.stream_id == stream_id,
            segments.c.first.between(segment.first - _LONGEST_SEGMENT, segment.last),
            segments.c.last >= segment.first,
            segments.c.position.is_not(None),
        )
    ).all()
    for row in overlapping:
        first, last = max(row.first, segment.first), min(row.last, segment.last)
        lines = connection.execute(
            select(events).where(
                events.c.device_id == device_id,
                events.c.stream == STREAM_CODES[segment.stream],
                events.c.position.between(row.position, row.position + row.last - row.first),
                events.c.epoch == segment.epoch,
                events.c.seq.between(first, last),
            )
        )
        for stored in with_lines(connection, lines.all()):
            yield stored.seq, stored.line


def _key(stream_id: int, kind: Kind, segment: Segment) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "kind": kind,
        "first": segment.first,
        "last": segment.last,
        "crc": segment.crc,
    }


def segment_of(row: Row[Any], stream: Stream, epoch: int) -> Segment:
    """The segment of a row of `set_aside`; when it was recorded is not kept there."""
    return Segment(
        stream=stream,
        epoch=epoch,
        first=row.first,
        last=row.last,
        count=row.last - row.first + 1,
        first_time=0,
        last_time=0,
        crc=row.crc,
        payload=row.payload,
    )
