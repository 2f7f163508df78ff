"""A whole examination of a vehicle: every read-only service, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nexus_agent.plugin import Progress
from nexus_plugins.obd import freeze, information, inspection, monitors, readiness, scan, vin
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.readiness import Status
from nexus_plugins.obd.vehicle import Vehicle


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an examination.

    findings: what of it `scan.completed` has (`catalogue.scans.Findings`, without who the car is).
    events: (type, data) of all else, in their order. answered: the control units that told
    anything of their codes. What names the car stays out of `repr`.
    """

    findings: dict[str, Any]
    events: list[tuple[str, Any]] = field(repr=False)
    answered: list[str]


async def full(
    elm: Elm327,
    vehicle: Vehicle,
    before: Iterable[str],
    progress: Progress,
    head: dict[str, str],
) -> Outcome:
    """Examine *vehicle*.

    before: control units that answered the last time. head: what every event begins with. Raises
    AdapterError where the adapter is lost on the way; then nothing is told.
    """
    codes = await scan.read(elm, {*vehicle.supported, *before}, progress)
    frames = await freeze.read(elm, vehicle, progress)
    progress("reading readiness")
    statuses = await readiness.read(elm, vehicle)
    progress("reading calibration ids and counters")
    said = await information.read(elm, vehicle)
    progress("reading test results")
    tests = await monitors.read(elm, vehicle, progress)
    events: list[tuple[str, Any]] = [
        *(("freeze_frame.captured", {**head, **frame.to_json()}) for frame in frames.frames),
        ("readiness.snapshot", {**head, **_snapshot(statuses, vehicle)}),
        ("calibration.ids", {**head, "ecus": said.calibrations_json()}),
        ("monitor.counters", {**head, "ecus": said.counters_json()}),
        ("monitor.tests", {**head, "ecus": [results.to_json() for results in tests]}),
    ]
    findings = {
        "vin_quality": vehicle.vin.quality,
        "modules": scan.to_json(codes, said.names()),
        "freeze_frames": frames.answers_json(),
    }
    return Outcome(findings, events, scan.answered(codes))


def _snapshot(statuses: list[Status], vehicle: Vehicle) -> dict[str, Any]:
    """The data of `readiness.snapshot` that is not about the scan."""
    number = vehicle.vin.number
    year = None if number is None else vin.model_year(number)
    return {
        "ecus": [status.to_json() for status in statuses],
        "model_year": year,
        "verdicts": inspection.verdicts(statuses, year),
    }
