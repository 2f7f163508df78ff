"""Rows of a console's database as its intake leaves them, put there directly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from nexus_agent.protocol import Stream, format_time, parse_time
from nexus_agent.protocol.compression import compress
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    CLOCKS,
    STREAM_CODES,
    blocks,
    devices,
    events,
    segments,
    streams,
    type_spans,
)

START = parse_time("2026-01-02T03:00:00Z")
SECOND = 1_000_000_000
DAY = 86_400 * SECOND


class Told(NamedTuple):
    """An event: what it says, when it was recorded and when it came."""

    data: Any
    time: int = START
    received: int = START
    type: str = "telemetry.pid"
    stream: Stream = Stream.TELEMETRY
    clock: str = "synced"


def pid(value: Any, quality: str = "ok", *, name: str = "engine_speed", **more: Any) -> Told:
    data = {"name": name, "ecu": "7E8", "unit": "rpm", "value": value, "quality": quality}
    return Told(data, **more)


def add_device(database: Database, name: str = "bay-1") -> int:
    with database.write() as connection:
        made = connection.execute(
            insert(devices).values(
                name=name,
                created=START,
                last_seen=START,
                online=True,
                since=START,
                events=0,
                command_counter=0,
            )
        )
        assert made.inserted_primary_key is not None
        return int(made.inserted_primary_key[0])


def add_events(database: Database, device_id: int, told: Sequence[Told]) -> None:
    """One segment for each run of events of one stream, and one span for each type in it."""
    with database.write() as connection:
        run: list[Told] = []
        for one in told:
            if run and run[0].stream is not one.stream:
                _add_segment(connection, device_id, run)
                run = []
            run.append(one)
        if run:
            _add_segment(connection, device_id, run)


def _add_segment(connection: Connection, device_id: int, run: list[Told]) -> None:
    code = STREAM_CODES[run[0].stream]
    known = select(devices.c.events).where(devices.c.id == device_id)
    position = int(connection.execute(known).scalar_one()) + 1
    lane = connection.execute(
        select(streams).filter_by(device_id=device_id, stream=code)
    ).one_or_none()
    if lane is None:
        zero = dict.fromkeys(
            ("high_water", "received", "duplicates", "conflicts", "undecodable"), 0
        )
        connection.execute(
            insert(streams).values(device_id=device_id, epoch=1, stream=code, **zero)
        )
        lane = connection.execute(select(streams).filter_by(device_id=device_id, stream=code)).one()
    first = lane.high_water + 1
    rows = [
        {
            "device_id": device_id,
            "stream": code,
            "position": position + n,
            "epoch": 1,
            "seq": first + n,
            "type": one.type,
            "time": one.time,
            "received": one.received,
            "clock": CLOCKS.index(one.clock),
            "line": "",
            "block": position,
        }
        for n, one in enumerate(run)
    ]
    connection.execute(insert(events), rows)
    connection.execute(
        insert(blocks).values(
            device_id=device_id,
            stream=code,
            first=position,
            last=position + len(run) - 1,
            payload=compress("\n".join(map(_line, run)).encode()),
        )
    )
    connection.execute(insert(type_spans), _spans(rows))
    newest = max(one.time for one in run)
    connection.execute(
        insert(segments).values(
            stream_id=lane.id,
            first=first,
            last=first + len(run) - 1,
            crc=first,
            position=position,
            last_time=newest,
        )
    )
    connection.execute(
        update(streams)
        .where(streams.c.id == lane.id)
        .values(high_water=first + len(run) - 1, received=lane.received + len(run))
    )
    connection.execute(
        update(devices).where(devices.c.id == device_id).values(events=position + len(run) - 1)
    )


def _spans(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for kind in {row["type"] for row in rows}:
        of_kind = [row for row in rows if row["type"] == kind]
        times = [row["time"] for row in of_kind]
        found.append(
            {
                **{key: of_kind[0][key] for key in ("device_id", "stream", "type")},
                "first": of_kind[0]["position"],
                "last": of_kind[-1]["position"],
                "count": len(of_kind),
                "first_time": min(times),
                "last_time": max(times),
            }
        )
    return found


def _line(one: Told) -> str:
    return json.dumps(
        {
            "specversion": "1.0",
            "id": "1/telemetry/1",
            "source": "/bay-1/test",
            "type": one.type,
            "time": format_time(one.time),
            "mono": "1.000000",
            "boot": "b",
            "synced": one.clock == "synced",
            "data": one.data,
        }
    )


def rows_of(database: Database, table: Any) -> list[dict[str, Any]]:
    """Every row of *table* by its key."""
    with database.read() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key.columns))
        return [dict(row) for row in found.mappings()]
