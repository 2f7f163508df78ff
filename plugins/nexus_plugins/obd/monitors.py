"""Results of a car's tests of itself.

Source: SAE J1979 section 6.6 (service 06) and appendix D (OBDMIDs). On CAN an answer holds, for
each test of a monitor, the monitor's number, the test's, the scaling, value, minimum and maximum.
Older buses have one limit: test, component, value, limit, all raw; bit 7 of the component says that
the limit is a minimum.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from nexus_agent.plugin import Progress, Quality
from nexus_plugins.obd.answer import Answer, Reply
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.listing import Listing, ask_listing
from nexus_plugins.obd.scaling import scaled, unit_of
from nexus_plugins.obd.vehicle import Vehicle

_SERVICE: Final = "06"
_CAN_RECORD: Final = 9
_OLD_MESSAGE: Final = 6
_MINIMUM: Final = 0x80


def _by_place(first: int, name: str, places: tuple[str, ...]) -> dict[int, str]:
    return {first + i: f"{name}_{place}" for i, place in enumerate(places)}


_BANKS: Final = ("bank_1", "bank_2", "bank_3", "bank_4")
_SENSORS: Final = tuple(f"b{bank}s{sensor}" for bank in range(1, 5) for sensor in range(1, 5))

NAMES: Final = {
    **_by_place(0x01, "oxygen_sensor", _SENSORS),
    **_by_place(0x21, "catalyst", _BANKS),
    **_by_place(0x31, "egr", _BANKS),
    **_by_place(0x35, "vvt", _BANKS),
    0x39: "evaporative_system_cap_off",
    0x3A: "evaporative_system_0.090_in",
    0x3B: "evaporative_system_0.040_in",
    0x3C: "evaporative_system_0.020_in",
    0x3D: "evaporative_purge_flow",
    **_by_place(0x41, "oxygen_sensor_heater", _SENSORS),
    **_by_place(0x61, "heated_catalyst", _BANKS),
    **_by_place(0x71, "secondary_air", _BANKS),
    **_by_place(0x81, "fuel_system", _BANKS),
    **_by_place(0x85, "boost_pressure", _BANKS[:2]),
    **_by_place(0x90, "nox_adsorber", _BANKS[:2]),
    **_by_place(0x98, "nox_scr_catalyst", _BANKS[:2]),
    0xA1: "misfire",
    **_by_place(0xA2, "misfire_cylinder", tuple(str(i) for i in range(1, 13))),
    **_by_place(0xB2, "pm_filter", _BANKS[:2]),
}
"""OBDMID → monitor."""


@dataclass(frozen=True, slots=True)
class Result:
    """One result; keys as in `monitor.tests`. passed is None where the test has not run."""

    monitor: int
    test: int
    name: str | None
    value: float
    minimum: float | None
    maximum: float | None
    unit: str
    passed: bool | None
    component: int | None = None

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        if self.component is None:
            del data["component"]
        return data


@dataclass(frozen=True, slots=True)
class Results:
    """What one control unit says."""

    ecu: str
    quality: Quality
    detail: str | None = None
    tests: tuple[Result, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "ecu": self.ecu,
            "quality": self.quality,
            "detail": self.detail,
            "tests": [test.to_json() for test in self.tests],
        }


def decode(reply: Reply) -> tuple[Result, ...] | None:
    """The results in an ok reply about one monitor; None where it does not decode."""
    found: list[Result] = []
    for message in reply.messages:
        body = message[1:]
        if len(body) == _OLD_MESSAGE:
            found.append(_old(body))
            continue
        records = [body[i : i + _CAN_RECORD] for i in range(0, len(body), _CAN_RECORD)]
        if not records or any(len(r) != _CAN_RECORD or r[0] != body[0] for r in records):
            return None
        found += map(_can, records)
    return tuple(found)


def _can(record: bytes) -> Result:
    monitor, test, uasid = record[:3]
    value, low, high = (scaled(uasid, record[i : i + 2]) for i in (3, 5, 7))
    # Section 6.6.1: all three are zero until the test has run after a clearing.
    run = any(record[3:])
    return Result(
        monitor=monitor,
        test=test,
        name=NAMES.get(monitor),
        value=value,
        minimum=low,
        maximum=high,
        unit=unit_of(uasid),
        passed=low <= value <= high if run else None,
    )


def _old(body: bytes) -> Result:
    value, limit = int.from_bytes(body[2:4], "big"), int.from_bytes(body[4:6], "big")
    least = bool(body[1] & _MINIMUM)
    return Result(
        monitor=0,
        test=body[0],
        name=None,
        value=value,
        minimum=limit if least else None,
        maximum=None if least else limit,
        unit="",
        passed=value >= limit if least else value <= limit,
        component=body[1] & ~_MINIMUM,
    )


async def read(elm: Elm327, vehicle: Vehicle, progress: Progress) -> list[Results]:
    """Every result that anybody says there is. Raises AdapterError."""
    listing = await ask_listing(elm, _SERVICE)
    answers: dict[int, Answer] = {}
    for number in listing.numbers():
        progress(f"reading test results {number:02X}")
        answers[number] = await elm.ask(f"{_SERVICE}{number:02X}")
    ecus = {*vehicle.supported, *(reply.ecu for reply in listing.first.replies)}
    return [_results(ecu, listing, answers) for ecu in sorted(ecus)]


def _results(ecu: str, listing: Listing, answers: dict[int, Answer]) -> Results:
    """All results of one control unit; quality is the first that is not ok, if any."""
    if not any(number in answers for number in listing.claims.get(ecu, ())):
        reason = listing.why_not(ecu)
        return Results(ecu, reason.quality, reason.detail)
    found: list[Result] = []
    trouble: tuple[Quality, str] | None = None
    for number in sorted(listing.claims[ecu] & set(answers)):
        reply = answers[number].of(ecu)
        results = decode(reply) if reply.quality is Quality.OK else None
        if results is not None:
            found += results
        elif trouble is None:
            wrong = reply.quality is Quality.OK
            quality = Quality.MALFORMED if wrong else reply.quality
            detail = "results that are cut short" if wrong else reply.detail
            trouble = (quality, f"{number:02X}: {detail}")
    quality, detail = trouble or (Quality.OK, None)
    return Results(ecu, quality, detail, tuple(found))
