"""Cars: who they are, what their control units said, and the life of their trouble codes."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, HTTPException, Query
from sqlalchemy import select

from nexus_agent.protocol import format_time
from nexus_console.api.access import ServicesDep, UserDep, VehicleDep
from nexus_console.db.models import vehicle_codes
from nexus_console.vehicles import answers, lookup
from nexus_console.vehicles.answers import (
    CodeLife,
    FreezeFrame,
    FreezeFrameList,
    LiveValue,
    LiveValueList,
    ScanPage,
    Sighting,
    Vehicle,
    VehicleDetail,
    VehiclePage,
)
from nexus_console.vehicles.facts import (
    CALIBRATIONS,
    CLEARED,
    COUNTERS,
    FRAME,
    IDENTIFIED,
    READINESS,
    SCAN,
    TESTS,
)

router = APIRouter(tags=["vehicles"])

MAX_FRAMES: Final = 500
"""Freeze frames that are looked at, the newest; most scans find those that the last one found."""
_MOST: Final = 2**63 - 1

_Limit = Annotated[int, Query(ge=1, le=200)]
_After = Annotated[str | None, Query(max_length=100)]


@router.get("/vehicles")
def list_vehicles(
    services: ServicesDep,
    _user: UserDep,
    search: Annotated[str, Query(max_length=64)] = "",
    after: _After = None,
    limit: _Limit = 50,
) -> VehiclePage:
    """Vehicles, those seen last first. search: a part of the reference, the VIN or the maker."""
    cursor = None if after is None else _list_cursor(after)
    with services.database.read() as connection:
        rows = lookup.listed(connection, search, cursor, limit + 1)
        seen_by = lookup.boxes(connection, [row.ref for row in rows[:limit]])
        unreadable = lookup.unreadable(connection)
    page = rows[:limit]
    more = len(rows) > limit
    return VehiclePage(
        vehicles=[Vehicle(**answers.summary(row, seen_by.get(row.ref, []))) for row in page],
        next=f"{page[-1].last_seen}.{page[-1].ref}" if more else None,
        unreadable=unreadable,
    )


@router.get("/vehicles/{vehicle}")
def show_vehicle(vehicle: VehicleDep, services: ServicesDep) -> VehicleDetail:
    """One vehicle."""
    with services.database.read() as connection:
        seen_by = lookup.boxes(connection, [vehicle.ref]).get(vehicle.ref, [])
        scans = lookup.facts(connection, vehicle.ref, SCAN, limit=2)
        newest = {
            kind: next(iter(lookup.facts(connection, vehicle.ref, kind, limit=1)), None)
            for kind in (IDENTIFIED, CLEARED, READINESS, CALIBRATIONS, COUNTERS, TESTS)
        }
        codes = connection.execute(select(vehicle_codes).filter_by(ref=vehicle.ref)).all()
    told: dict[str, Any] = {
        kind: answers.told(row) if row else None for kind, row in newest.items()
    }
    return VehicleDetail(
        **answers.summary(vehicle, seen_by),
        sightings=[
            Sighting(
                box=row.name, first_seen=format_time(row.first), last_seen=format_time(row.last)
            )
            for row in seen_by
        ],
        identity=told[IDENTIFIED],
        codes=sorted(map(answers.code, codes), key=answers.by_urgency),
        scan=answers.told(scans[0]) if scans else None,
        difference=answers.compared(*scans) if len(scans) == 2 else None,
        cleared=told[CLEARED],
        readiness=told[READINESS],
        calibrations=told[CALIBRATIONS],
        counters=told[COUNTERS],
        tests=told[TESTS],
    )


@router.get("/vehicles/{vehicle}/scans")
def list_scans(
    vehicle: VehicleDep, services: ServicesDep, after: _After = None, limit: _Limit = 20
) -> ScanPage:
    """Scans of a vehicle by any box, with every control unit that was asked and what it said."""
    before = None if after is None else _fact_cursor(after)
    with services.database.read() as connection:
        rows = lookup.facts(connection, vehicle.ref, SCAN, limit=limit + 1, before=before)
    page = rows[:limit]
    last = page[-1] if len(rows) > limit else None
    return ScanPage(
        scans=[answers.told(row) for row in page],
        next=f"{last.time}.{last.device_id}.{last.position}" if last else None,
    )


@router.get("/vehicles/{vehicle}/codes/{ecu}/{code}")
def show_code(vehicle: VehicleDep, ecu: str, code: str, services: ServicesDep) -> CodeLife:
    """The life of one code of one control unit, change by change."""
    with services.database.read() as connection:
        row = connection.execute(
            select(vehicle_codes).filter_by(ref=vehicle.ref, ecu=ecu, code=code)
        ).one_or_none()
        if row is None:
            raise HTTPException(404, f"No scan of this vehicle has shown {code!r} at {ecu!r}.")
        return answers.life(connection, row)


@router.get("/vehicles/{vehicle}/freeze-frames")
def list_freeze_frames(vehicle: VehicleDep, services: ServicesDep) -> FreezeFrameList:
    """What control units kept of the moments in which they found faults, the newest first."""
    with services.database.read() as connection:
        rows = lookup.facts(connection, vehicle.ref, FRAME, limit=MAX_FRAMES)
    frames: dict[str, FreezeFrame] = {}
    for row in rows:
        time = format_time(row.time)
        if row.data in frames:
            frames[row.data].first_seen = time
        else:
            said = orjson.loads(row.data)
            frames[row.data] = FreezeFrame(**said, first_seen=time, last_seen=time)
    return FreezeFrameList(frames=list(frames.values()))


@router.get("/vehicles/{vehicle}/live")
def list_live_values(vehicle: VehicleDep, services: ServicesDep) -> LiveValueList:
    """The newest of each value of each control unit, of the boxes that saw it last."""
    with services.database.read() as connection:
        found = lookup.live_values(connection, vehicle.ref)
    return LiveValueList(
        values=[
            LiveValue(
                **one.said.model_dump(include=set(LiveValue.model_fields)),
                time=format_time(one.time),
                box=one.box,
            )
            for one in found
        ]
    )


def _list_cursor(text: str) -> tuple[int, str]:
    seen, _, ref = text.partition(".")
    return _number(seen, text), ref


def _fact_cursor(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if len(parts) != 3:
        raise _not_a_cursor(text)
    return tuple(_number(part, text) for part in parts)


def _number(part: str, text: str) -> int:
    digits = part.removeprefix("-")
    if not digits.isascii() or not digits.isdecimal() or int(digits[:20]) > _MOST:
        raise _not_a_cursor(text)
    return int(part)


def _not_a_cursor(text: str) -> HTTPException:
    return HTTPException(422, f"after: {text[:40]!r} is not a cursor of this list.")
