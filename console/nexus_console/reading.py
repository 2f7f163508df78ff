"""Finding stored events of one type: by the order of their arrival, or by their time.

`type_spans` says between which positions the events of a type are; the events themselves are then
one range of the table's key.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from nexus_agent.protocol import Stream
from nexus_console.blocks import Stored, with_lines
from nexus_console.db.models import STREAM_CODES, STREAMS, events, type_spans


def arrived(
    connection: Connection,
    device_id: int,
    event_type: str,
    *,
    stream: Stream | None = None,
    after: int = 0,
    newest: bool = False,
    limit: int,
) -> list[Stored]:
    """At most *limit* events behind position *after*, the first or the last of them.

    They are in the order of their arrival either way.
    """
    found: list[Row[Any]] = []
    for code in STREAMS if stream is None else [STREAM_CODES[stream]]:
        spans = (
            select(type_spans)
            .filter_by(device_id=device_id, type=event_type, stream=code)
            .where(type_spans.c.last > after)
            .order_by(type_spans.c.first.desc() if newest else type_spans.c.first)
        )
        found += islice(_rows(connection, spans, after=after, newest=newest), limit)
    found.sort(key=lambda row: int(row.position))
    return list(with_lines(connection, found[-limit:] if newest else found[:limit]))


def recorded(
    connection: Connection, device_id: int, event_type: str, *, since: int, until: int
) -> Iterator[Stored]:
    """Events whose time is within *since* to *until* (ns), about the newest first.

    Spans come by their newest time, so a caller who stops early has seen the newest spans whole.
    """
    spans = (
        select(type_spans)
        .filter_by(device_id=device_id, type=event_type)
        .where(type_spans.c.last_time >= since, type_spans.c.first_time <= until)
        .order_by(type_spans.c.last_time.desc())
    )
    rows = _rows(connection, spans, after=0, newest=True)
    yield from with_lines(connection, (row for row in rows if since <= row.time <= until))


def _rows(
    connection: Connection, spans: Select[Any], *, after: int, newest: bool
) -> Iterator[Row[Any]]:
    # The spans are read first: not every driver lets a statement stay open while another runs.
    for span in connection.execute(spans).all():
        yield from connection.execute(
            select(events)
            .where(
                events.c.device_id == span.device_id,
                events.c.stream == span.stream,
                events.c.position.between(max(span.first, after + 1), span.last),
                events.c.type == span.type,
            )
            .order_by(events.c.position.desc() if newest else events.c.position)
        )
