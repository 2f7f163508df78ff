"""Boxes: their status, and what each said last about itself, its adapter and its vehicle."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from nexus_agent.protocol import format_time
from nexus_console.api.access import DeviceDep, ServicesDep, UserDep
from nexus_console.db.models import devices
from nexus_console.ingest import now_ns
from nexus_console.presence import birth_of, status_of
from nexus_console.reading import arrived

router = APIRouter(tags=["devices"])

LOOK_BACK = 100
"""Events of one type that are looked at for the newest: what comes late is not the latest."""


class Device(BaseModel):
    """storage: why the box could not write to its disk when it last said; null: it could."""

    id: str
    status: Literal["online", "offline", "stale"]
    reason: str | None
    since: str
    last_seen: str
    interval: int | None
    agent: str | None
    hostname: str | None
    boot: str | None
    session: str | None
    epoch: int | None
    storage: str | None


class DeviceDetail(Device):
    """adapter is the data of the last such event, with its time; vehicle that of the one that named
    a car last: `vehicle.identified`, or `scan.completed` with `vehicle_ref`, `vin` and time only.
    """

    vehicle: dict[str, Any] | None
    plugins: dict[str, str]
    adapter: dict[str, Any] | None


class DeviceList(BaseModel):
    devices: list[Device]


@router.get("/devices")
def list_devices(services: ServicesDep, _user: UserDep) -> DeviceList:
    """All boxes, by id."""
    now = now_ns()
    with services.database.read() as connection:
        rows = connection.execute(select(devices).order_by(devices.c.name)).all()
    return DeviceList(devices=[Device(**_summary(row, now)) for row in rows])


@router.get("/devices/{device}")
def show_device(device: DeviceDep, services: ServicesDep) -> DeviceDetail:
    """One box."""
    with services.database.read() as connection:
        vehicle = _vehicle(connection, device.id)
        adapter = _newest(connection, device.id, "adapter.state")
        plugins = _plugins(connection, device)
    return DeviceDetail(
        **_summary(device, now_ns()), vehicle=vehicle, adapter=adapter, plugins=plugins
    )


def _summary(row: Row[Any], now: int) -> dict[str, Any]:
    status = status_of(row, now)
    birth = birth_of(row)
    return {
        "id": row.name,
        "status": status.status,
        "reason": status.reason,
        "since": format_time(status.since),
        "last_seen": format_time(row.last_seen),
        "interval": row.interval,
        "agent": birth.agent if birth else None,
        "hostname": birth.hostname if birth else None,
        "boot": birth.boot if birth else None,
        "session": row.session,
        "epoch": birth.epoch if birth else None,
        "storage": birth.storage if birth else None,
    }


def _vehicle(connection: Connection, device_id: int) -> dict[str, Any] | None:
    """The car that was named last; only OBD says more of it than a scan does."""
    identified = _newest(connection, device_id, "vehicle.identified")
    scan = _newest(connection, device_id, "scan.completed")
    if scan is None or scan.get("vehicle_ref") is None:
        return identified
    same = identified is not None and identified.get("vehicle_ref") == scan["vehicle_ref"]
    if same or (identified is not None and identified["time"] > scan["time"]):
        return identified
    return {key: scan[key] for key in ("vehicle_ref", "vin", "time") if key in scan}


def _newest(connection: Connection, device_id: int, event_type: str) -> dict[str, Any] | None:
    row = max(
        arrived(connection, device_id, event_type, newest=True, limit=LOOK_BACK),
        key=lambda row: (row.epoch, row.seq),
        default=None,
    )
    if row is None:
        return None
    data = orjson.loads(row.line)["data"]
    return {**data, "time": format_time(row.time)} if isinstance(data, dict) else None


def _plugins(connection: Connection, device: Row[Any]) -> dict[str, str]:
    """State by plugin: what the birth document says, and what has changed since it came."""
    birth = birth_of(device)
    states = dict(birth.plugins or {}) if birth else {}
    born = device.born or 0
    changes = arrived(connection, device.id, "plugin.state", newest=True, limit=LOOK_BACK)
    for row in sorted(changes, key=lambda row: (row.epoch, row.seq)):
        data = orjson.loads(row.line)["data"]
        if row.received >= born and isinstance(data, dict):
            name, state = data.get("plugin"), data.get("state")
            if isinstance(name, str) and isinstance(state, str):
                states[name] = state
    return states
