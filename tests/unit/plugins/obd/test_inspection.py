"""What inspection programmes make of readiness: by model year, ignition and what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.inspection import verdicts
from nexus_plugins.obd.readiness import Status, decode

EVAP, CATALYST, SENSOR = 0x04, 0x01, 0x20
NMHC, PM, NOX = 0x01, 0x40, 0x02


def spark(incomplete: int, ecu: str = "7E8") -> Status:
    data = bytes([0, 0x07, 0xE5, incomplete])
    return decode(Reply(ecu, Quality.OK, (b"\x41\x01" + data,)))


def diesel(incomplete: int) -> Status:
    return decode(Reply("7E8", Quality.OK, (b"\x41\x01" + bytes([0, 0x0F, 0xEB, incomplete]),)))


def by_rule(statuses: list[Status], year: int | None) -> dict[str, dict[str, Any]]:
    return {verdict["rule"]: verdict for verdict in verdicts(statuses, year)}


@pytest.mark.parametrize(
    ("status", "year", "epa", "carb"),
    [
        (spark(0), 2015, True, True),
        (spark(EVAP), 2015, True, True),
        (spark(CATALYST), 2015, True, False),
        (spark(EVAP | CATALYST), 2015, False, False),
        (spark(EVAP | CATALYST), 2000, True, False),
        (spark(EVAP | CATALYST), 2001, False, False),
        (spark(CATALYST), 1999, True, True),
        (spark(CATALYST), 2000, True, False),
        (spark(EVAP | CATALYST), 1999, True, False),
        (spark(EVAP | CATALYST | SENSOR), 1996, False, False),
        (diesel(0), 2006, True, True),
        (diesel(PM), 2006, True, False),
        (diesel(PM), 2007, True, True),
        (diesel(PM | NMHC), 2007, False, True),
        (diesel(NOX), 2007, True, False),
        (diesel(0), 1997, True, None),
        (spark(0), 1995, None, None),
    ],
)
def test_verdicts_follow_year_and_ignition(
    status: Status, year: int, epa: bool | None, carb: bool | None
) -> None:
    found = by_rule([status], year)

    assert (found["epa"]["ready"], found["carb"]["ready"]) == (epa, carb)


@pytest.mark.parametrize(
    ("statuses", "year", "reason"),
    [
        ([], 2015, "no control unit tells its readiness"),
        ([spark(0)], None, "the model year is not known"),
        (
            [spark(0), Status("7E9", Quality.REFUSED, "NRC 0x22")],
            2015,
            "7E9 refuses to tell its readiness: NRC 0x22",
        ),
        ([Status("7E8", Quality.ABSENT, "did not answer")], 2015, "7E8 is silent: did not answer"),
        (
            [Status("7E8", Quality.MALFORMED, "3 data bytes")],
            2015,
            "7E8 cannot be understood: 3 data bytes",
        ),
        (
            [decode(Reply("7E8", Quality.OK, (bytes.fromhex("410100000000"),)))],
            2015,
            "no control unit has any monitor",
        ),
        (
            [spark(0), diesel(0)],
            2015,
            "the control units disagree on whether ignition is by spark or by compression",
        ),
    ],
)
def test_where_nobody_can_say_there_is_no_verdict(
    statuses: list[Status], year: int | None, reason: str
) -> None:
    for verdict in verdicts(statuses, year):
        assert (verdict["ready"], verdict["allowed"], verdict["reason"]) == (None, None, reason)


def test_one_monitor_of_two_control_units_counts_once() -> None:
    found = by_rule([spark(EVAP), spark(EVAP, "7E9")], 2015)

    assert found["epa"]["incomplete"] == ["evaporative_system"]
    assert found["epa"]["ready"] is True


def test_a_control_unit_without_monitors_has_no_say_in_the_ignition() -> None:
    gearbox = decode(Reply("7E9", Quality.OK, (bytes.fromhex("410100000000"),)))

    assert by_rule([diesel(PM), gearbox], 2010)["carb"]["ready"] is True


@given(
    data=st.lists(st.binary(min_size=4, max_size=4), max_size=3),
    bad=st.lists(st.sampled_from([Quality.ABSENT, Quality.REFUSED, Quality.MALFORMED]), max_size=1),
    year=st.none() | st.integers(1990, 2030),
)
def test_a_verdict_needs_everybodys_answer_and_a_year(
    data: list[bytes], bad: list[Quality], year: int | None
) -> None:
    statuses = [decode(Reply("7E8", Quality.OK, (b"\x41\x01" + each,))) for each in data]
    statuses += [Status("7E9", quality, "x") for quality in bad]

    for verdict in verdicts(statuses, year):
        assert verdict["reason"]
        if bad or year is None or not data:
            assert verdict["ready"] is None
        if verdict["ready"]:
            assert len(verdict["incomplete"]) <= verdict["allowed"]
