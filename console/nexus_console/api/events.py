"""Events of a box, in the order in which they came."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from nexus_agent.protocol import MAX_SEQUENCE, Stream, format_time
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.db.models import STREAM_CODES, STREAMS, events

router = APIRouter(tags=["events"])


class Event(BaseModel):
    """synced: whether the box's clock was right. time is the box's, received the console's."""

    cursor: str
    epoch: int
    stream: Stream
    seq: int
    type: str
    source: str
    time: str
    received: str
    synced: bool
    data: Any


class EventPage(BaseModel):
    """next goes into `after` for what comes next; it is there on the last page too."""

    events: list[Event]
    next: str


@router.get("/devices/{device}/events")
def list_events(
    device: DeviceDep,
    services: ServicesDep,
    type: str | None = None,  # noqa: A002 - the name that scripts use
    stream: Stream | None = None,
    after: str = "0",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EventPage:
    """Events after a cursor, ascending: who goes on with `next` misses none that comes late."""
    position = _position(after)
    with services.database.read() as connection:
        rows = _page(connection, device.id, position, event_type=type, stream=stream, limit=limit)
    return EventPage(
        events=[_event(row) for row in rows], next=str(rows[-1].position) if rows else after
    )


def _position(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdecimal() or int(cursor[:20]) > MAX_SEQUENCE:
        raise HTTPException(422, f"after: {cursor[:40]!r} is not a cursor of this list.")
    return int(cursor)


def _page(
    connection: Connection,
    device_id: int,
    position: int,
    *,
    event_type: str | None,
    stream: Stream | None,
    limit: int,
) -> list[Row[Any]]:
    page = (
        select(events)
        .where(events.c.device_id == device_id, events.c.position > position)
        .order_by(events.c.position)
        .limit(limit)
    )
    if event_type is not None:
        page = page.where(events.c.type == event_type)
        if stream is not None:
            page = page.where(events.c.stream == STREAM_CODES[stream])
        return list(connection.execute(page).all())
    # The key is (device, stream, position): one short read a stream, then merged.
    rows: list[Row[Any]] = []
    for code in STREAMS if stream is None else [STREAM_CODES[stream]]:
        rows += connection.execute(page.where(events.c.stream == code)).all()
    return sorted(rows, key=lambda row: row.position)[:limit]


def _event(row: Row[Any]) -> Event:
    line = orjson.loads(row.line)
    return Event(
        cursor=str(row.position),
        epoch=row.epoch,
        stream=STREAMS[row.stream],
        seq=row.seq,
        type=row.type,
        source=line["source"],
        time=format_time(row.time),
        received=format_time(row.received),
        synced=line["synced"],
        data=line["data"],
    )
