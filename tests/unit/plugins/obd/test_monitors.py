"""Test results: on CAN with their scalings, on older buses raw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.monitors import Result, decode
from nexus_plugins.obd.scaling import SCALINGS, scaled, unit_of


def reply(*messages: str) -> Reply:
    return Reply("7E8", Quality.OK, tuple(bytes.fromhex(message) for message in messages))


def only(message: str) -> Result:
    found = decode(reply(message))
    assert found is not None
    (result,) = found
    return result


def test_a_result_has_its_unit_and_its_limits() -> None:
    assert only("46 01 01 0A 0E66 0D99 FFFF") == Result(
        monitor=1,
        test=1,
        name="oxygen_sensor_b1s1",
        value=449.692,
        minimum=424.682,
        maximum=7995.27,
        unit="mV",
        passed=True,
    )


@pytest.mark.parametrize(
    ("figures", "passed"),
    [
        ("0010 0010 0020", True),
        ("0020 0010 0020", True),
        ("000F 0010 0020", False),
        ("0021 0010 0020", False),
        ("0000 0000 0000", None),
        ("0000 0000 0001", True),
    ],
)
def test_a_result_passes_within_its_limits_and_not_before_it_has_run(
    figures: str, passed: bool | None
) -> None:
    assert only(f"46 A2 0B 24 {figures}").passed is passed


def test_signed_results_have_signed_limits() -> None:
    found = only("46 3C 80 FE FF9C FF38 0000")

    assert (found.value, found.minimum, found.maximum) == (-25, -50, 0)
    assert (found.unit, found.passed) == ("Pa", True)


@pytest.mark.parametrize(("uasid", "value"), [(0x7F, 0xFFFE), (0xF0, -2)])
def test_scalings_that_are_not_known_leave_the_figures_raw(uasid: int, value: int) -> None:
    found = only(f"46 E1 01 {uasid:02X} FFFE 0000 FFFF")

    assert (found.name, found.unit, found.value) == (None, "", value)


def test_several_tests_of_one_monitor_come_in_one_answer() -> None:
    found = decode(reply("46 21 80 20 0100 0000 0200  21 81 20 0300 0000 0200"))

    assert found is not None
    assert [(each.test, each.value, each.passed) for each in found] == [
        (0x80, 1, True),
        (0x81, 3, False),
    ]


@pytest.mark.parametrize(
    "message", ["46 21", "46 21 80 20 0100 0000 02", "46 21 80 20 0100 0000 0200 22" + 8 * "00"]
)
def test_a_record_that_is_cut_short_or_another_monitors_spoils_the_answer(message: str) -> None:
    assert decode(reply(message)) is None


def test_older_buses_have_one_limit_and_no_unit() -> None:
    found = decode(reply("46 02 01 0050 0064", "46 02 81 0050 0064"))

    assert found is not None
    assert [(t.monitor, t.test, t.component, t.unit) for t in found] == [(0, 2, 1, "")] * 2
    assert [(t.value, t.minimum, t.maximum, t.passed) for t in found] == [
        (80, None, 100, True),
        (80, 100, None, False),
    ]


@pytest.mark.parametrize(
    ("uasid", "word", "value", "unit"),
    [
        (0x07, "0C80", 800, "rpm"),
        (0x0B, "01C2", 0.45, "V"),
        (0x10, "0064", 100, "ms"),
        (0x16, "0190", 0, "°C"),
        (0x1C, "0064", 1, "°"),
        (0x39, "8000", 0, "%"),
        (0x81, "FFFF", -1, "1"),
        (0x8C, "FF9C", -1, "V"),
        (0x96, "FFF6", -1, "°C"),
        (0xB0, "8000", -100.007936, "%"),
    ],
)
def test_scalings_follow_the_standard(uasid: int, word: str, value: float, unit: str) -> None:
    assert (scaled(uasid, bytes.fromhex(word)), unit_of(uasid)) == (value, unit)


@given(uasid=st.integers(0, 255), word=st.binary(min_size=2, max_size=2))
def test_only_ids_from_80_on_are_signed(uasid: int, word: bytes) -> None:
    offset = SCALINGS[uasid].offset if uasid in SCALINGS else 0

    negative = scaled(uasid, word) < offset
    assert negative == (uasid >= 0x80 and word[0] >= 0x80)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_any_bytes_are_whole_results_or_none(messages: list[bytes]) -> None:
    found = decode(Reply("7E8", Quality.OK, tuple(b"\x46" + message for message in messages)))

    if found is not None:
        sizes = [1 if len(message) == 6 else len(message) // 9 for message in messages]
        assert len(found) == sum(sizes)
