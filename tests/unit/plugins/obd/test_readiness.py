"""Readiness of one control unit: bytes to monitors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.readiness import Status, decode

CONTINUOUS = ["misfire", "fuel_system", "comprehensive_component"]
SPARK = [
    "catalyst",
    "heated_catalyst",
    "evaporative_system",
    "secondary_air_system",
    "gasoline_particulate_filter",
    "oxygen_sensor",
    "oxygen_sensor_heater",
    "egr_vvt_system",
]
COMPRESSION = [
    "nmhc_catalyst",
    "nox_scr_aftertreatment",
    "boost_pressure",
    "exhaust_gas_sensor",
    "pm_filter",
    "egr_vvt_system",
]


def reply(data: str, pid: int = 0x01) -> Reply:
    return Reply("7E8", Quality.OK, (bytes([0x41, pid]) + bytes.fromhex(data),))


def supported(status: Status) -> list[str]:
    return [monitor.name for monitor in status.monitors if monitor.supported]


def test_a_spark_engine_with_a_lamp_and_one_code() -> None:
    found = decode(reply("81076504"))

    assert (found.mil, found.dtc_count, found.ignition) == (True, 1, "spark")
    assert supported(found) == [
        *CONTINUOUS,
        "catalyst",
        "evaporative_system",
        "oxygen_sensor",
        "oxygen_sensor_heater",
    ]
    assert found.incomplete() == ["evaporative_system"]


def test_a_diesel_has_other_monitors() -> None:
    found = decode(reply("000FEB48"))

    assert (found.mil, found.ignition) == (False, "compression")
    assert [monitor.name for monitor in found.monitors] == [*CONTINUOUS, *COMPRESSION]
    assert found.incomplete() == ["boost_pressure", "pm_filter"]


def test_what_is_not_supported_is_neither_complete_nor_not() -> None:
    found = decode(reply("007000FF"))

    assert {monitor.complete for monitor in found.monitors} == {None}
    assert [monitor.name for monitor in found.monitors] == [*CONTINUOUS, *SPARK]


def test_a_driving_cycle_has_monitors_of_its_own() -> None:
    found = decode(reply("00070100"), reply("00110000", 0x41))

    assert found.cycle is not None
    assert [(m.name, m.complete) for m in found.cycle if m.supported] == [("misfire", False)]


@pytest.mark.parametrize(
    "cycle",
    [
        None,
        Reply("7E8", Quality.REFUSED, detail="no", nrc=0x12),
        Reply("7E8", Quality.OK, (bytes.fromhex("4141000700"),)),
        Reply("7E8", Quality.OK, (bytes.fromhex("4141000F0000"),)),
    ],
    ids=["not asked", "refused", "short", "another ignition"],
)
def test_a_cycle_that_was_not_told_does_not_harm_the_rest(cycle: Reply | None) -> None:
    found = decode(reply("00070100"), cycle)

    assert (found.quality, found.cycle) == (Quality.OK, None)


@given(data=st.binary(max_size=8), cycle=st.none() | st.binary(max_size=8))
def test_any_bytes_are_a_status_or_malformed(data: bytes, cycle: bytes | None) -> None:
    other = None if cycle is None else Reply("7E8", Quality.OK, (b"\x41\x41" + cycle,))

    found = decode(Reply("7E8", Quality.OK, (b"\x41\x01" + data,)), other)

    assert (found.quality is Quality.OK) == (len(data) == 4)
    assert (found.mil is None) == (found.quality is not Quality.OK)


def test_two_answers_that_cannot_be_told_apart_are_no_status() -> None:
    found = decode(Reply("unknown", Quality.OK, (bytes.fromhex("410100070000"),) * 2))

    assert (found.quality, found.mil, found.monitors) == (Quality.MALFORMED, None, ())
