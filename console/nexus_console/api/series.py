"""Readings over time, as a chart draws them."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel
from sqlalchemy import Connection, Row, Table, select

from nexus_agent.protocol import ProtocolError, Quality, format_time, parse_time
from nexus_console import reading
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.config import RetentionSettings
from nexus_console.curves import readings
from nexus_console.db.models import series, series_hour, series_minute
from nexus_console.retention import DAY
from nexus_console.rollups import HOUR, MINUTE

router = APIRouter(tags=["series"])

MAX_ROWS: Final = 50_000
"""Rows that one request reads at most, the newest first."""
LONGEST_RAW: Final = 6 * HOUR
LONGEST_MINUTES: Final = 14 * DAY

_EVER: Final = (-(2**63), 2**63 - 1)
_NOT_OK: Final = (Quality.ABSENT, Quality.REFUSED, Quality.MALFORMED)


class Resolution(enum.StrEnum):
    """How fine points are: as they came, or one for each minute or hour."""

    AUTO = "auto"
    RAW = "raw"
    MINUTE = "minute"
    HOUR = "hour"


class Point(BaseModel):
    """value is null unless the quality is ok: nothing is invented."""

    time: str
    value: float | str | bool | None
    quality: Quality


class PeriodPoint(BaseModel):
    """The readings of the minute or hour that begins at time, count of them in all.

    value is the mean of those that were ok, null where none was or one of them was no number.
    quality is ok if any was, otherwise the most frequent one.
    """

    time: str
    value: float | None
    minimum: float | None
    maximum: float | None
    count: int
    quality: Quality


class Series(BaseModel):
    name: str
    ecu: str | None
    unit: str | None
    points: list[Point] | list[PeriodPoint]


class SeriesList(BaseModel):
    """truncated: there is more within the asked time than `limit` or the reader allowed."""

    resolution: Resolution
    series: list[Series]
    truncated: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    device_id: int
    type: str
    name: str | None
    since: int
    until: int
    limit: int


@router.get("/devices/{device}/series")
def list_series(
    device: DeviceDep,
    services: ServicesDep,
    type: str = "telemetry.pid",  # noqa: A002
    name: str | None = None,
    since: Annotated[str | None, Query(alias="from")] = None,
    until: Annotated[str | None, Query(alias="to")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    resolution: Resolution = Resolution.AUTO,
) -> SeriesList:
    """Points by time, ascending; the newest *limit* of each series within `from` to `to`.

    `auto` is raw up to 6 hours while that is kept, minute up to 14 days, hour beyond; raw without
    `from`.
    """
    first = _EVER[0] if since is None else _time("from", since)
    last = _EVER[1] if until is None else _time("to", until)
    wanted = _Wanted(device.id, type, name, first, last, limit)
    if resolution is Resolution.AUTO:
        resolution = _resolution(wanted, services.retention, time.time_ns())
    with services.database.read() as connection:
        if resolution is Resolution.RAW:
            found, truncated = _raw(connection, wanted)
        else:
            found, truncated = _periods(connection, wanted, resolution)
    return SeriesList(resolution=resolution, series=found, truncated=truncated)


def _resolution(wanted: _Wanted, retention: RetentionSettings, now: int) -> Resolution:
    """The finest that the asked time is not too long or too long ago for."""
    if wanted.since == _EVER[0]:
        return Resolution.RAW
    length = min(wanted.until, now) - wanted.since

    def kept(days: int) -> bool:
        return days == 0 or wanted.since >= now - days * DAY

    if length <= LONGEST_RAW and kept(retention.raw_days):
        return Resolution.RAW
    if length <= LONGEST_MINUTES and kept(retention.minute_days):
        return Resolution.MINUTE
    return Resolution.HOUR


def _raw(connection: Connection, wanted: _Wanted) -> tuple[list[Series], bool]:
    rows = reading.recorded(
        connection, wanted.device_id, wanted.type, since=wanted.since, until=wanted.until
    )
    found: dict[tuple[str, str, str], list[tuple[int, Point]]] = {}
    truncated = False
    for read, row in enumerate(rows):
        full = truncated and all(len(points) >= wanted.limit for points in found.values())
        if full or read == MAX_ROWS:
            truncated = True
            break
        for one in readings(row.line):
            if wanted.name is not None and one.name != wanted.name:
                continue
            points = found.setdefault((one.name, one.ecu or "", one.unit or ""), [])
            if len(points) < wanted.limit:
                point = Point(time=format_time(row.time), value=one.value, quality=one.quality)
                points.append((row.time, point))
            else:
                truncated = True
    for points in found.values():
        points.reverse()
        # Spans may overlap in time: what came late is not in its place yet.
        points.sort(key=lambda pair: pair[0])
    return [
        _series(*key, [point for _, point in points]) for key, points in sorted(found.items())
    ], truncated


def _periods(
    connection: Connection, wanted: _Wanted, resolution: Resolution
) -> tuple[list[Series], bool]:
    curves = select(series).filter_by(device_id=wanted.device_id, type=wanted.type)
    if wanted.name is not None:
        curves = curves.where(series.c.name == wanted.name)
    order = (series.c.name, series.c.ecu, series.c.unit)
    rows = connection.execute(curves.order_by(*order)).all()
    # Where there are very many curves, each has the same share of what may be read.
    limit = min(wanted.limit, max(1, MAX_ROWS // max(1, len(rows))))
    found: list[Series] = []
    truncated = False
    for row in rows[:MAX_ROWS]:
        periods = _of(connection, row.id, wanted, resolution, limit + 1)
        truncated = truncated or len(periods) > limit
        if points := [_point(period) for period in periods[:limit][::-1]]:
            found.append(_series(row.name, row.ecu, row.unit, points))
    return found, truncated or len(rows) > MAX_ROWS


def _of(
    connection: Connection, series_id: int, wanted: _Wanted, resolution: Resolution, limit: int
) -> list[Row[Any]]:
    """The newest periods of a curve, the newest first; the one that `from` lies in is whole."""
    table: Table
    table, length = (
        (series_minute, MINUTE) if resolution is Resolution.MINUTE else (series_hour, HOUR)
    )
    since = max(wanted.since, _EVER[0] + length) // length * length
    return list(
        connection.execute(
            select(table)
            .where(table.c.series_id == series_id, table.c.start.between(since, wanted.until))
            .order_by(table.c.start.desc())
            .limit(limit)
        )
    )


def _series(name: str, ecu: str, unit: str, points: list[Point] | list[PeriodPoint]) -> Series:
    return Series(name=name, ecu=ecu or None, unit=unit or None, points=points)


def _point(row: Row[Any]) -> PeriodPoint:
    counts = {quality: int(getattr(row, quality)) for quality in Quality}
    ok = counts[Quality.OK]
    return PeriodPoint(
        time=format_time(row.start),
        value=row.total / ok if ok and row.total is not None else None,
        minimum=row.minimum,
        maximum=row.maximum,
        count=sum(counts.values()),
        quality=Quality.OK if ok else max(_NOT_OK, key=lambda quality: counts[quality]),
    )


def _time(key: str, text: str) -> int:
    try:
        return parse_time(text)
    except ProtocolError as error:
        raise HTTPException(422, f"{key}: {error}.") from None
