"""From stored events to facts: what one event says of one car, and in which order they count."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson

from nexus_agent.protocol import ProtocolError, catalogue
from nexus_console.blocks import Stored
from nexus_console.vehicles.erased import is_erased
from nexus_console.vehicles.scans import Clearing, Origin, Scan

IDENTIFIED: Final = catalogue.vehicle.VehicleIdentified.type
SCAN: Final = catalogue.scans.ScanCompleted.type
CLEARED: Final = catalogue.scans.DtcCleared.type
FRAME: Final = catalogue.emissions.FreezeFrameCaptured.type
READINESS: Final = catalogue.emissions.ReadinessSnapshot.type
CALIBRATIONS: Final = catalogue.emissions.CalibrationIds.type
COUNTERS: Final = catalogue.emissions.InUseCounters.type
TESTS: Final = catalogue.emissions.MonitorTests.type

HISTORY: Final = (IDENTIFIED, SCAN, CLEARED, FRAME)
"""Types of which every event is kept."""
LATEST: Final = (READINESS, CALIBRATIONS, COUNTERS, TESTS)
"""Types of which a car's newest event is kept."""
TYPES: Final = HISTORY + LATEST

_COLUMNS: Final = ("vehicle_ref", "vin", "scan_id")
_NUL: Final = rb"\u0000"
"""As JSON writes it. No name has it, and PostgreSQL's texts cannot hold it."""


class UnreadableError(Exception):
    """The event's data is not what the catalogue says of its type."""


class Fact(NamedTuple):
    """A row of `vehicle_facts`."""

    ref: str
    device_id: int
    position: int
    epoch: int
    seq: int
    type: str
    time: int
    clock: int
    scan_id: str | None
    vin: str | None
    data: str


def fact_of(event: Stored) -> Fact | None:
    """What *event*, one of TYPES, says; None where it names no car, or was erased.

    Raises UnreadableError.
    """
    try:
        data = orjson.loads(event.line)["data"]
        if is_erased(data):
            return None
        said = catalogue.CATALOGUE[event.type].read(data)
    except (orjson.JSONDecodeError, ProtocolError) as error:
        raise UnreadableError from error
    if not isinstance(said, catalogue.CarData) or said.vehicle_ref is None:
        return None
    document = said.document()
    if _NUL in orjson.dumps(document):
        raise UnreadableError
    own = {key: value for key, value in document.items() if key not in _COLUMNS}
    return Fact(
        ref=said.vehicle_ref,
        device_id=event.device_id,
        position=event.position,
        epoch=event.epoch,
        seq=event.seq,
        type=event.type,
        time=event.time,
        clock=event.clock,
        scan_id=document.get("scan_id"),
        vin=said.vin,
        data=orjson.dumps(own).decode(),
    )


class Told(NamedTuple):
    """A fact that codes depend on, read."""

    device_id: int
    epoch: int
    seq: int
    time: int
    said: Scan | Clearing


def told_by(row: Any) -> Told:
    """A row of `vehicle_facts` whose type is SCAN or CLEARED."""
    origin = Origin(row.time, row.device_id, row.position, row.scan_id)
    data = orjson.loads(row.data)
    said = Scan.of(origin, data) if row.type == SCAN else Clearing.of(origin, data)
    return Told(row.device_id, row.epoch, row.seq, row.time, said)


def in_order(told: Iterable[Told]) -> list[Scan | Clearing]:
    """By their times; those of one box as it numbered them, whatever its clock did."""
    rows = sorted(told, key=lambda one: (one.device_id, one.epoch, one.seq, one.time))
    boxes = [
        list(_not_before(of_box)) for _, of_box in groupby(rows, key=lambda one: one.device_id)
    ]
    return [one.said for _, _, one in heapq.merge(*boxes, key=lambda entry: entry[:2])]


def _not_before(of_box: Iterable[Told]) -> Iterator[tuple[int, int, Told]]:
    """Each with a time that is not before that of the one before it, to merge boxes by."""
    latest = None
    for one in of_box:
        latest = one.time if latest is None else max(latest, one.time)
        yield latest, one.device_id, one
