"""A shop's cars, told to a console as its boxes tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.integration.console_cars import (
    ECU,
    OK,
    REF,
    VIN,
    Boxes,
    calibrations,
    cleared,
    counters,
    fold,
    found,
    frame,
    identified,
    live,
    scanned,
)
from tests.integration.console_messages import Store

from nexus_agent.protocol import Quality
from nexus_agent.protocol.catalogue import emissions
from nexus_console.db.engine import Database

HIDDEN: Final = "v-3f9c1d20ab7744e5910c"
"""A car whose boxes keep its VIN to themselves."""
_HOUR: Final = 3600


def fill(path: Path, now: int) -> None:
    """Make the console's database at *path*: what two boxes have told of three cars until *now*."""
    database = Database(f"sqlite:///{path}")
    database.prepare()
    try:
        boxes = Boxes(Store(database), start=now)
        _patient(boxes)
        boxes.tell(identified(ref=HIDDEN, vin_check="wrong", maker="Ford"), at=-40 * _HOUR)
        boxes.tell(identified(ref="v-00aa11bb22cc33dd44ee", maker=None, model_year=None), at=-_HOUR)
        boxes.tell(found("clean", ref="v-00aa11bb22cc33dd44ee"), at=-_HOUR + 60)
        fold(database)
    finally:
        database.close()


def _patient(boxes: Boxes) -> None:
    """Scanned, cleared, and back with some of what it had."""
    boxes.tell(identified(vin=VIN), at=-50 * _HOUR)
    before: dict[str, Any] = {"pending": [], "permanent": []}
    boxes.tell(
        scanned(
            "1c5a0f6e",
            {
                ECU: before | {"stored": ["P0301", "P0420", "P0171"], "permanent": ["P0420"]},
                "7E9": before | {"stored": ["P0700"]},
                "7EA": before | {"stored": ["U0100"]},
            },
            vin=VIN,
        ),
        frame("P0301", 2400.0, scan_id="1c5a0f6e"),
        at=-49 * _HOUR,
    )
    boxes.tell(cleared(), at=-48 * _HOUR)
    boxes.tell(
        scanned(
            "77be210d",
            {
                ECU: {"stored": ["P0301"], "pending": ["P0133"], "permanent": ["P0420"]},
                "7E9": {"stored": [], "pending": [], "permanent": "refused"},
                "7EA": {"stored": "absent", "pending": "absent", "permanent": "absent"},
            },
            vin=VIN,
        ),
        frame("P0301", 3125.5, scan_id="77be210d"),
        _readiness(),
        calibrations(),
        counters(),
        _tests(),
        at=-600,
        box="bay-2",
    )
    boxes.tell(
        live("engine_speed", 0x0C, 812.5, "rpm"),
        live("vehicle_speed", 0x0D, 0.0, "km/h"),
        live("coolant_temperature", 0x05, 88.0, "degC"),
        live("intake_pressure", 0x0B, None, "kPa"),
        at=-5,
        box="bay-2",
    )


def _readiness() -> Any:
    def monitors(*open_ones: str) -> tuple[emissions.Monitor, ...]:
        names = ("misfire", "fuel_system", "components", "catalyst", "evaporative_system", "egr")
        return tuple(
            emissions.Monitor(
                name=name,
                supported=name != "egr",
                complete=None if name == "egr" else name not in open_ones,
            )
            for name in names
        )

    return emissions.ReadinessSnapshot(
        vehicle_ref=REF,
        ecus=(
            emissions.Readiness(
                ecu=ECU,
                quality=OK,
                mil=True,
                dtc_count=1,
                ignition="spark",
                monitors=monitors("catalyst", "evaporative_system"),
                cycle=monitors("catalyst"),
            ),
            emissions.Readiness(ecu="7EA", quality=Quality.ABSENT, detail="no answer in time"),
        ),
        model_year=2003,
        verdicts=(
            emissions.Verdict(
                rule="epa",
                ready=False,
                reason="Two monitors are not complete, and one may be from model year 2001 on.",
                incomplete=("catalyst", "evaporative_system"),
                allowed=1,
                source="EPA-420-R-01-015",
            ),
            emissions.Verdict(
                rule="carb",
                ready=None,
                reason="It cannot be said without the fuel.",
                incomplete=("catalyst", "evaporative_system"),
                allowed=None,
                source="16 CCR 3340.42.2",
            ),
        ),
    )


def _tests() -> Any:
    def test(name: str | None, value: float, *, passed: bool | None) -> emissions.Test:
        return emissions.Test(
            monitor=0x21,
            test=0x80,
            name=name,
            value=value,
            minimum=None,
            maximum=0.6,
            unit="V",
            passed=passed,
        )

    return emissions.MonitorTests(
        vehicle_ref=REF,
        ecus=(
            emissions.Tests(
                ecu=ECU,
                quality=OK,
                tests=(
                    test("Oxygen sensor bank 1 sensor 1", 0.35, passed=True),
                    test("Catalyst bank 1", 0.82, passed=False),
                    test(None, 0.1, passed=True),
                    test("Evaporative system", 0.0, passed=None),
                ),
            ),
            emissions.Tests(ecu="7E9", quality=Quality.REFUSED, detail="service not supported"),
        ),
    )
