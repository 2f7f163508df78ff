"""Readings over time, as a chart draws them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import select

from nexus_agent.protocol import ProtocolError, Quality, format_time, parse_time
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.db.models import events

router = APIRouter(tags=["series"])

MAX_ROWS: Final = 50_000
"""Events that one request reads at most, the newest first."""


class Point(BaseModel):
    """value is null unless the quality is ok: nothing is invented."""

    time: str
    value: float | str | bool | None
    quality: Quality


class Series(BaseModel):
    name: str
    ecu: str | None
    unit: str | None
    points: list[Point]


class SeriesList(BaseModel):
    """truncated: there is more within the asked time than `limit` or the reader allowed."""

    series: list[Series]
    truncated: bool


@router.get("/devices/{device}/series")
def list_series(
    device: DeviceDep,
    services: ServicesDep,
    type: str = "telemetry.pid",  # noqa: A002
    name: str | None = None,
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> SeriesList:
    """Points by time, ascending; the newest *limit* of each series within `from` to `to`."""
    rows = (
        select(events.c.time, events.c.line)
        .where(events.c.device_id == device.id, events.c.type == type)
        .order_by(events.c.time.desc())
        .limit(MAX_ROWS)
    )
    if since is not None:
        rows = rows.where(events.c.time >= _time("from", since))
    if until is not None:
        rows = rows.where(events.c.time <= _time("to", until))
    found: dict[tuple[str, str | None, str | None], list[Point]] = {}
    read, truncated = 0, False
    with services.database.read() as connection:
        for row in connection.execution_options(yield_per=1000).execute(rows):
            read += 1
            for reading, ecu, value in _readings(row.line):
                if name is not None and reading != name:
                    continue
                points = found.setdefault((reading, ecu, _text(value.get("unit"))), [])
                if len(points) < limit:
                    points.append(_point(row.time, value))
                else:
                    truncated = True
            if truncated and all(len(points) >= limit for points in found.values()):
                break
    return SeriesList(
        series=[
            Series(name=key[0], ecu=key[1], unit=key[2], points=points[::-1])
            for key, points in sorted(found.items(), key=lambda item: str(item[0]))
        ],
        truncated=truncated or read == MAX_ROWS,
    )


def _readings(line: str) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(name, ecu, {value, unit, quality}) of one event: itself, or each of many by its name."""
    data = orjson.loads(line)["data"]
    if not isinstance(data, dict):
        return
    if isinstance(data.get("name"), str):
        yield data["name"], _text(data.get("ecu")), data
        return
    for name, value in data.items():
        if isinstance(value, dict) and "quality" in value:
            yield name, None, value


def _point(time: int, value: dict[str, Any]) -> Point:
    quality, reading = value.get("quality"), value.get("value")
    if quality not in set(Quality) or not isinstance(reading, float | int | str | None):
        return Point(time=format_time(time), value=None, quality=Quality.MALFORMED)
    shown = reading if quality == Quality.OK else None
    return Point(time=format_time(time), value=shown, quality=Quality(quality))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _time(key: str, text: str) -> int:
    try:
        return parse_time(text)
    except ProtocolError as error:
        raise HTTPException(422, f"{key}: {error}.") from None
