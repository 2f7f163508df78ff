"""What the API says of cars, and how it comes from the tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel
from sqlalchemy import Connection, Row

from nexus_agent.protocol import Quality, catalogue, format_time
from nexus_console.vehicles import lookup
from nexus_console.vehicles.difference import Outcome, difference
from nexus_console.vehicles.life import State
from nexus_console.vehicles.scans import Origin, Scan

_Said = TypeVar("_Said")
_Kind = Literal["stored", "pending", "permanent"]
_Why = Literal["not asked", "did not answer", "refused", "malformed"]

_URGENCY: Final = (
    State.RETURNED,
    State.CONFIRMED,
    State.PENDING,
    State.PERMANENT,
    State.UNKNOWN,
    State.CLEARED,
    State.GONE,
)


class Vehicle(BaseModel):
    """present: codes that it has; unknown: codes of which nobody knows whether it still has them.

    vin is null where no box sent it. boxes saw it, the last one first.
    """

    ref: str
    vin: str | None
    maker: str | None
    model_year: int | None
    first_seen: str
    last_seen: str
    last_scan: str | None
    present: int
    unknown: int
    boxes: list[str]


class VehiclePage(BaseModel):
    """next goes into `after`; null on the last page. unreadable: events of all boxes that should
    be in a vehicle's history and cannot be read.
    """

    vehicles: list[Vehicle]
    next: str | None
    unreadable: int


class Told(BaseModel, Generic[_Said]):
    """What an event said, with its box, and its cursor among that box's events."""

    time: str
    box: str
    cursor: str
    scan_id: str | None
    data: _Said


class Sighting(BaseModel):
    box: str
    first_seen: str
    last_seen: str


class VehicleCode(BaseModel):
    """kinds: under which it is there, or was when that was last known. since: of this state.

    unsaid: which kinds nobody has answered, and why. seen: when a scan last showed it; checked:
    when its control unit last said whether it is there; returned: how often it came back.
    """

    ecu: str
    code: str
    state: State
    kinds: list[_Kind]
    unsaid: dict[_Kind, _Why]
    since: str
    first_seen: str
    seen: str
    checked: str
    returned: int


class CodeChange(BaseModel):
    """cursor: that of the event which brought it, among the events of `box`."""

    state: State
    kinds: list[_Kind]
    unsaid: dict[_Kind, _Why]
    time: str
    box: str
    cursor: str
    scan_id: str | None


class CodeLife(VehicleCode):
    """changes: the oldest first."""

    changes: list[CodeChange]


class Compared(BaseModel):
    """unsaid: the kinds that the scan which cannot tell did not answer."""

    ecu: str
    code: str
    outcome: Outcome
    before: list[_Kind]
    after: list[_Kind]
    unsaid: dict[_Kind, _Why]


class Difference(BaseModel):
    """From the scan before the last one to the last one. before and after are their times."""

    before: str
    after: str
    codes: list[Compared]


class VehicleDetail(Vehicle):
    """The newest that was told of each; null where nobody has told anything."""

    sightings: list[Sighting]
    identity: Told[catalogue.vehicle.VehicleIdentified] | None
    codes: list[VehicleCode]
    scan: Told[catalogue.scans.ScanCompleted] | None
    difference: Difference | None
    cleared: Told[catalogue.scans.DtcCleared] | None
    readiness: Told[catalogue.emissions.ReadinessSnapshot] | None
    calibrations: Told[catalogue.emissions.CalibrationIds] | None
    counters: Told[catalogue.emissions.InUseCounters] | None
    tests: Told[catalogue.emissions.MonitorTests] | None


class ScanPage(BaseModel):
    """The newest first. next goes into `after`; null on the last page."""

    scans: list[Told[catalogue.scans.ScanCompleted]]
    next: str | None


class FreezeFrame(BaseModel):
    """One that several scans have found is here once, with when first and when last."""

    ecu: str
    frame: int
    code: str | None
    values: list[catalogue.emissions.FrameValue]
    first_seen: str
    last_seen: str


class FreezeFrameList(BaseModel):
    frames: list[FreezeFrame]


class LiveValue(BaseModel):
    """value is null unless the quality is ok."""

    ecu: str
    pid: int
    name: str
    value: float | str | bool | None
    unit: str
    quality: Quality
    detail: str | None
    time: str
    box: str


class LiveValueList(BaseModel):
    values: list[LiveValue]


def summary(row: Row[Any], seen_by: list[Row[Any]]) -> dict[str, Any]:
    """A row of `vehicles` as the fields of Vehicle; seen_by: its boxes."""
    return {
        "ref": row.ref,
        "vin": row.vin,
        "maker": row.maker,
        "model_year": row.model_year,
        "first_seen": format_time(row.first_seen),
        "last_seen": format_time(row.last_seen),
        "last_scan": None if row.last_scan is None else format_time(row.last_scan),
        "present": row.present,
        "unknown": row.unknown,
        "boxes": [box.name for box in seen_by],
    }


def told(row: Row[Any]) -> Told[Any]:
    """A fact, its data as the catalogue has it."""
    model = catalogue.CATALOGUE[row.type]
    data = orjson.loads(row.data)
    if row.scan_id is not None:
        data["scan_id"] = row.scan_id
    return Told[model](  # type: ignore[valid-type]
        time=format_time(row.time),
        box=row.name,
        cursor=str(row.position),
        scan_id=row.scan_id,
        data=model.read(data),
    )


def compared(after: Row[Any], before: Row[Any]) -> Difference:
    """How the codes of two scans, rows of `vehicle_facts`, differ."""

    def scan(row: Row[Any]) -> Scan:
        origin = Origin(row.time, row.device_id, row.position, row.scan_id)
        return Scan.of(origin, orjson.loads(row.data))

    return Difference(
        before=format_time(before.time),
        after=format_time(after.time),
        codes=[
            Compared.model_validate(change, from_attributes=True)
            for change in difference(scan(before), scan(after))
        ],
    )


def code(row: Row[Any]) -> VehicleCode:
    """A row of `vehicle_codes`."""
    return VehicleCode(**_values(row, orjson.loads(row.life)))


def life(connection: Connection, row: Row[Any]) -> CodeLife:
    """A row of `vehicle_codes` with all its changes."""
    document = orjson.loads(row.life)
    names = lookup.names(connection, (change["device_id"] for change in document["changes"]))
    changes = [
        CodeChange(
            state=change["state"],
            kinds=change["kinds"],
            unsaid=change["unsaid"],
            time=format_time(change["time"]),
            box=names[change["device_id"]],
            cursor=str(change["position"]),
            scan_id=change["scan_id"],
        )
        for change in document["changes"]
    ]
    return CodeLife(**_values(row, document), changes=changes)


def _values(row: Row[Any], document: dict[str, Any]) -> dict[str, Any]:
    changes = document["changes"]
    returns = [
        change["state"] == State.RETURNED != before["state"] for before, change in pairwise(changes)
    ]
    since = next(
        change["time"]
        for n, change in reversed(list(enumerate(changes)))
        if n == 0 or changes[n - 1]["state"] != row.state
    )
    return {
        "ecu": row.ecu,
        "code": row.code,
        "state": row.state,
        "kinds": changes[-1]["kinds"],
        "unsaid": changes[-1]["unsaid"],
        "since": format_time(since),
        "first_seen": format_time(changes[0]["time"]),
        "seen": format_time(document["seen"]),
        "checked": format_time(document["checked"]),
        "returned": sum(returns),
    }


def by_urgency(one: VehicleCode) -> tuple[int, str, str]:
    """What is there first, then what may be, then what was."""
    return (_URGENCY.index(one.state), one.ecu, one.code)
