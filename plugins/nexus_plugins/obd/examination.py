"""A whole examination of a vehicle: every read-only service, and the events that tell of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nexus_agent.plugin import Progress
from nexus_plugins.obd import freeze, information, inspection, monitors, readiness, scan, vin
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.freeze import Frames
from nexus_plugins.obd.information import Information
from nexus_plugins.obd.monitors import Results
from nexus_plugins.obd.readiness import Status
from nexus_plugins.obd.scan import Scan
from nexus_plugins.obd.vehicle import Vehicle


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an examination.

    result: the data of `scan.completed`, with `diff` (None where there is nothing to compare with),
    `frames`, `readiness`, `calibrations`, `counters` and `tests`. events: (type, data) in their
    order. scan: for the next comparison. What names the car stays out of `repr`.
    """

    result: dict[str, Any] = field(repr=False)
    events: list[tuple[str, Any]] = field(repr=False)
    scan: Scan


@dataclass(frozen=True, slots=True)
class _Found:
    """What the vehicle said, by service."""

    codes: Scan
    frames: Frames
    statuses: list[Status]
    information: Information
    tests: list[Results]


async def full(
    elm: Elm327,
    scan_id: str,
    vehicle: Vehicle,
    previous: Scan | None,
    progress: Progress,
    car: dict[str, str],
    *,
    adapter: str,
    phase: str | None,
) -> Outcome:
    """Examine *vehicle*, which events name as *car*, and compare its codes with *previous*.

    phase: `pre` or `post` of a repair, where the technician said so. Raises AdapterError where the
    adapter is lost on the way; then nothing is told.
    """
    codes = await scan.read(elm, scan_id, vehicle.supported, previous, progress)
    frames = await freeze.read(elm, vehicle, progress)
    progress("reading readiness")
    statuses = await readiness.read(elm, vehicle)
    progress("reading calibration ids and counters")
    said = await information.read(elm, vehicle)
    progress("reading test results")
    tests = await monitors.read(elm, vehicle, progress)
    head = {"scan_id": scan_id, **car}
    about = {"adapter": adapter, **({} if phase is None else {"phase": phase})}
    found = _Found(codes, frames, statuses, said, tests)
    return _outcome(found, vehicle, previous, head, about)


def _outcome(
    found: _Found,
    vehicle: Vehicle,
    previous: Scan | None,
    head: dict[str, str],
    about: dict[str, str],
) -> Outcome:
    """head: what every event begins with; about: what only the scan itself says."""
    car = {key: text for key, text in head.items() if key != "scan_id"}
    completed = {
        **head,
        **about,
        "modules": found.codes.modules_json(found.information.names()),
        "dtcs": found.codes.dtcs(),
        "vin_quality": vehicle.vin.quality,
        "freeze_frames": found.frames.answers_json(),
    }
    snapshot = _snapshot(found.statuses, vehicle)
    frames = [frame.to_json() for frame in found.frames.frames]
    calibrations = found.information.calibrations_json()
    counters = found.information.counters_json()
    tests = [results.to_json() for results in found.tests]
    events: list[tuple[str, Any]] = [
        *(("dtc.observed", data) for data in scan.observed(found.codes, car)),
        *(("freeze_frame.captured", {**head, **frame}) for frame in frames),
        ("readiness.snapshot", {**head, **snapshot}),
        ("calibration.ids", {**head, "ecus": calibrations}),
        ("monitor.counters", {**head, "ecus": counters}),
        ("monitor.tests", {**head, "ecus": tests}),
        ("scan.completed", completed),
    ]
    diff = scan.diff(found.codes, previous, car)
    if diff is not None:
        events.append(("scan.diff", diff))
    result = {
        **completed,
        "diff": diff,
        "frames": frames,
        "readiness": snapshot,
        "calibrations": calibrations,
        "counters": counters,
        "tests": tests,
    }
    return Outcome(result, events, found.codes)


def _snapshot(statuses: list[Status], vehicle: Vehicle) -> dict[str, Any]:
    """The data of `readiness.snapshot` that is not about the scan."""
    number = vehicle.vin.number
    year = None if number is None else vin.model_year(number)
    return {
        "ecus": [status.to_json() for status in statuses],
        "model_year": year,
        "verdicts": inspection.verdicts(statuses, year),
    }
