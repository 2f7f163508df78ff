"""What boxes tell of cars, in the catalogue's own models, put in as a box sends it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tests.integration.console_messages import BOOT, NOW, Store, message, sealed

from nexus_agent.protocol import Quality, Stream, catalogue
from nexus_agent.protocol.catalogue import emissions, scans, vehicle
from nexus_console.db.engine import Database
from nexus_console.vehicles.history import Histories

SECOND: Final = 1_000_000_000
REF: Final = "k7m2q9x4t8w3"
VIN: Final = "1HGCM82633A004352"
ECU: Final = "7E8"
OK: Final = Quality.OK

Answers = dict[str, str | list[str]]
"""kind → its codes, or the quality of an answer that has none."""


def identified(ref: str | None = REF, vin: str | None = None, **more: Any) -> Any:
    return vehicle.VehicleIdentified(
        **_car(ref, vin),
        **(
            {
                "adapter": "bay",
                "ecu": ECU,
                "ecus": (ECU, "7E9"),
                "protocol": "ISO 15765-4 (CAN 11/500)",
                "supported_pids": (0x0C, 0x0D),
                "quality": OK,
                "vin_check": "ok",
                "maker": "Honda",
                "model_year": 2003,
                "region": "North America",
            }
            | more
        ),
    )


def scanned(scan_id: str, modules: dict[str, Answers], ref: str | None = REF, **more: Any) -> Any:
    """A scan of *modules*; `"absent"` instead of codes is an answer that did not come."""
    parts = tuple(
        scans.Module(ecu=ecu, answers={kind: _answer(said) for kind, said in answers.items()})
        for ecu, answers in modules.items()
    )
    found: dict[tuple[str, str], list[str]] = {}
    for ecu, answers in modules.items():
        for kind, said in answers.items():
            for code in [] if isinstance(said, str) else said:
                found.setdefault((ecu, code), []).append(kind)
    return scans.ScanCompleted(
        **_car(ref, more.pop("vin", None)),
        scan_id=scan_id,
        modules=parts,
        dtcs=tuple(
            scans.FoundCode(code=code, kinds=tuple(kinds), ecu=ecu)
            for (ecu, code), kinds in found.items()
        ),
        vin_quality=OK,
        **more,
    )


def found(scan_id: str, *codes: str, ref: str = REF, **more: Any) -> Any:
    """A scan of one module that answered everything, with *codes* stored."""
    answers: Answers = {"stored": list(codes), "pending": [], "permanent": []}
    return scanned(scan_id, {ECU: answers}, ref, **more)


def silent(scan_id: str) -> Any:
    return scanned(scan_id, {ECU: {"stored": "absent", "pending": "absent"}})


def cleared(outcome: Quality = OK, ref: str = REF) -> Any:
    one = scans.Cleared(ecu=ECU, outcome=outcome, detail=None)
    return scans.DtcCleared(vehicle_ref=ref, outcome=outcome, ecus=(one,))


def frame(code: str = "P0301", rpm: float = 2400.0, **more: Any) -> Any:
    value = emissions.FrameValue(pid=0x0C, name="engine_speed", value=rpm, unit="rpm", quality=OK)
    return emissions.FreezeFrameCaptured(
        **({"vehicle_ref": REF} | more), ecu=ECU, frame=0, code=code, values=(value,)
    )


def readiness(*, complete: bool = True) -> Any:
    monitor = emissions.Monitor(name="catalyst", supported=True, complete=complete)
    verdict = emissions.Verdict(
        rule="epa",
        ready=complete,
        reason="every monitor is complete" if complete else "catalyst is not complete",
        incomplete=() if complete else ("catalyst",),
        allowed=1,
        source="40 CFR 51.357(a)(7)",
    )
    said = emissions.Readiness(
        ecu=ECU, quality=OK, mil=True, dtc_count=1, ignition="spark", monitors=(monitor,)
    )
    return emissions.ReadinessSnapshot(
        vehicle_ref=REF, ecus=(said,), model_year=2003, verdicts=(verdict,)
    )


def calibrations() -> Any:
    said = emissions.Calibration(
        ecu=ECU,
        name="ECM-EngineControl",
        ids=("37805-RBB-J530",),
        quality=OK,
        cvns=("1791BC82",),
        cvn_quality=OK,
    )
    return emissions.CalibrationIds(vehicle_ref=REF, ecus=(said,))


def counters() -> Any:
    counter = emissions.Counter(name="catalyst", completions=7, conditions=9)
    said = emissions.Counters(
        ecu=ECU, quality=OK, ignition_cycles=120, obd_conditions=80, counters=(counter,)
    )
    return emissions.InUseCounters(vehicle_ref=REF, ecus=(said,))


def monitor_tests() -> Any:
    test = emissions.Test(
        monitor=0x21,
        test=0x80,
        name="Catalyst bank 1",
        value=0.4,
        minimum=None,
        maximum=0.6,
        unit="1",
        passed=True,
    )
    refused = emissions.Tests(ecu="7E9", quality=Quality.REFUSED, detail="service not supported")
    return emissions.MonitorTests(
        vehicle_ref=REF, ecus=(emissions.Tests(ecu=ECU, quality=OK, tests=(test,)), refused)
    )


def live(name: str, pid: int, value: float | None, unit: str, ref: str = REF) -> Any:
    quality = Quality.ABSENT if value is None else OK
    return vehicle.TelemetryPid(
        vehicle_ref=ref, ecu=ECU, pid=pid, name=name, value=value, unit=unit, quality=quality
    )


class Boxes:
    """Boxes that send to one console; what each sends gets the next numbers of its streams.

    start: ns since 1970, from which times are counted.
    """

    def __init__(self, store: Store, *, start: int = NOW) -> None:
        self._store, self._start = store, start
        self._next: Counter[tuple[str, Stream]] = Counter()

    def tell(
        self, *said: Any, at: int, box: str = "bay-1", synced: bool = True, boot: str = BOOT
    ) -> None:
        """*said* by models, or (type, data) for what no model would let pass; at: s from start."""
        for one in said:
            kind, data = one if isinstance(one, tuple) else (one.type, one.document())
            model = catalogue.CATALOGUE[kind]
            stream = model.streams[0]
            self._next[box, stream] += 1
            segment = sealed(
                self._next[box, stream],
                data,
                stream=stream,
                event_type=kind,
                device=box,
                time=self._start + at * SECOND,
                mono=10**12 + at * SECOND,
                boot=boot,
                synced=synced,
            )
            self._store.take(message(segment, device=box, received=self._start + at * SECOND))


def fold(database: Database) -> int:
    """Bring the histories up to the events; how many there were."""
    return sum(step.events for step in Histories(database).turn())


def _car(ref: str | None, vin: str | None) -> dict[str, str]:
    return {key: value for key, value in (("vehicle_ref", ref), ("vin", vin)) if value is not None}


def _answer(said: str | list[str]) -> scans.Codes:
    if isinstance(said, str):
        return scans.Codes(quality=Quality(said), codes=(), detail=f"the module was {said}")
    return scans.Codes(quality=OK, codes=tuple(said))
