"""Events of a box, in the order in which they came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from nexus_agent.protocol import MAX_SEQUENCE, Stream, format_time
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.blocks import Stored, with_lines
from nexus_console.clocks import RETIMED
from nexus_console.db.models import CLOCKS, STREAM_CODES, STREAMS, events
from nexus_console.reading import arrived

router = APIRouter(tags=["events"])


class Event(BaseModel):
    """time is the box's, received the console's.

    synced: whether the box's clock was synchronised. clock: what time is worth: `synced`;
    `unsynced`, but right as far as is known; `retimed`, set right by the console, box_time being
    what the box said; or `unknown`, it may be off by anything.
    """

    cursor: str
    epoch: int
    stream: Stream
    seq: int
    type: str
    source: str
    time: str
    received: str
    synced: bool
    clock: Literal["synced", "unsynced", "retimed", "unknown"]
    box_time: str | None
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
    newest: bool = False,
) -> EventPage:
    """Events after a cursor, ascending: who goes on with `next` misses none that comes late.

    newest: not the first of them but the last, ascending all the same.
    """
    wanted = _Wanted(device.id, _position(after), type, stream, limit, newest=newest)
    with services.database.read() as connection:
        rows = _page(connection, wanted)
    return EventPage(
        events=[_event(row) for row in rows], next=str(rows[-1].position) if rows else after
    )


def _position(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdecimal() or int(cursor[:20]) > MAX_SEQUENCE:
        raise HTTPException(422, f"after: {cursor[:40]!r} is not a cursor of this list.")
    return int(cursor)


@dataclass(frozen=True, slots=True)
class _Wanted:
    device_id: int
    position: int
    type: str | None
    stream: Stream | None
    limit: int
    newest: bool


def _page(connection: Connection, wanted: _Wanted) -> list[Stored]:
    if wanted.type is not None:
        return arrived(
            connection,
            wanted.device_id,
            wanted.type,
            stream=wanted.stream,
            after=wanted.position,
            newest=wanted.newest,
            limit=wanted.limit,
        )
    order = events.c.position.desc() if wanted.newest else events.c.position
    page = (
        select(events)
        .where(events.c.device_id == wanted.device_id, events.c.position > wanted.position)
        .order_by(order)
        .limit(wanted.limit)
    )
    # The key is (device, stream, position): one short read a stream, then merged.
    rows: list[Row[Any]] = []
    for code in STREAMS if wanted.stream is None else [STREAM_CODES[wanted.stream]]:
        rows += connection.execute(page.where(events.c.stream == code)).all()
    rows.sort(key=lambda row: row.position)
    page_of_all = rows[-wanted.limit :] if wanted.newest else rows[: wanted.limit]
    return list(with_lines(connection, page_of_all))


def _event(row: Stored) -> Event:
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
        clock=CLOCKS[row.clock],
        box_time=line["time"] if row.clock == RETIMED else None,
        data=line["data"],
    )
