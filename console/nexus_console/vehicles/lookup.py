"""Looking up what is known of cars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Row, Select, func, or_, select, tuple_

from nexus_agent.protocol import ProtocolError, catalogue
from nexus_console.db.models import devices, vehicle_facts, vehicle_marks, vehicles
from nexus_console.reading import arrived

LIVE_BOXES: Final = 3
"""Boxes, those that saw the car last, whose readings are looked at."""
LIVE_EVENTS: Final = 500
"""Readings of each that are looked at, the newest."""

Cursor = tuple[int, ...]
_COLUMNS: Final = vehicle_facts.c


class LiveValue(NamedTuple):
    """The newest reading of one value of one control unit; time in ns."""

    time: int
    box: str
    said: catalogue.vehicle.TelemetryPid


def listed(
    connection: Connection, search: str, after: tuple[int, str] | None, limit: int
) -> list[Row[Any]]:
    """Rows of `vehicles`, those seen last first. after: (last_seen, ref) of the row before."""
    columns = vehicles.c
    found = select(vehicles).order_by(columns.last_seen.desc(), columns.ref).limit(limit)
    if text := search.strip().lower():
        found = found.where(
            or_(
                *(
                    func.lower(column).contains(text, autoescape=True)
                    for column in (columns.ref, columns.vin, columns.maker)
                )
            )
        )
    if after is not None:
        seen, ref = after
        found = found.where(
            or_(columns.last_seen < seen, (columns.last_seen == seen) & (columns.ref > ref))
        )
    return list(connection.execute(found))


def unreadable(connection: Connection) -> int:
    """How many events should have been in a history and could not be read."""
    total = select(func.coalesce(func.sum(vehicle_marks.c.unreadable), 0))
    return int(connection.execute(total).scalar_one())


def boxes(connection: Connection, refs: Iterable[str]) -> dict[str, list[Row[Any]]]:
    """Of each car, (ref, device_id, name, first, last) of the boxes that saw it, by when last."""
    first, last = func.min(_COLUMNS.time).label("first"), func.max(_COLUMNS.time).label("last")
    found = (
        select(_COLUMNS.ref, _COLUMNS.device_id, devices.c.name, first, last)
        .join_from(vehicle_facts, devices, devices.c.id == _COLUMNS.device_id)
        .where(_COLUMNS.ref.in_(list(refs)))
        .group_by(_COLUMNS.ref, _COLUMNS.device_id, devices.c.name)
        .order_by(last.desc(), devices.c.name)
    )
    by_ref: dict[str, list[Any]] = {}
    for row in connection.execute(found):
        by_ref.setdefault(row.ref, []).append(row)
    return by_ref


def facts(
    connection: Connection,
    ref: str,
    kind: str,
    *,
    limit: int,
    before: Cursor | None = None,
) -> list[Row[Any]]:
    """Facts of one type with the `name` of their box, the newest first.

    before: (time, device id, position) of the one that the last page ended with.
    """
    key = (_COLUMNS.time, _COLUMNS.device_id, _COLUMNS.position)
    found: Select[Any] = (
        select(vehicle_facts, devices.c.name)
        .join_from(vehicle_facts, devices, devices.c.id == _COLUMNS.device_id)
        .where(_COLUMNS.ref == ref, _COLUMNS.type == kind)
        .order_by(*(column.desc() for column in key))
        .limit(limit)
    )
    if before is not None:
        found = found.where(tuple_(*key) < before)
    return list(connection.execute(found))


def names(connection: Connection, device_ids: Iterable[int]) -> Mapping[int, str]:
    """The boxes' names by their ids."""
    wanted = select(devices.c.id, devices.c.name).where(devices.c.id.in_(set(device_ids)))
    return {row.id: row.name for row in connection.execute(wanted)}


def live_values(connection: Connection, ref: str) -> list[LiveValue]:
    """The newest reading of each value of each control unit, by control unit, PID and name."""
    kind = catalogue.vehicle.TelemetryPid
    newest: dict[tuple[str, int, str], LiveValue] = {}
    for box in boxes(connection, [ref]).get(ref, [])[:LIVE_BOXES]:
        for row in arrived(connection, box.device_id, kind.type, newest=True, limit=LIVE_EVENTS):
            try:
                said = kind.read(orjson.loads(row.line)["data"])
            except (orjson.JSONDecodeError, ProtocolError):
                continue  # it is among the events as it came
            key = (said.ecu, said.pid, said.name)
            if said.vehicle_ref == ref and (key not in newest or newest[key].time <= row.time):
                newest[key] = LiveValue(row.time, box.name, said)
    return [newest[key] for key in sorted(newest)]
