"""What frames say, held against cantools, which reads the same files."""

from __future__ import annotations

import math
from pathlib import Path

import cantools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.can_signals.database import read
from nexus_plugins.can_signals.decoding import Reading, decoded, indicated, value_of
from nexus_plugins.can_signals.layout import SHORT, Layout, Signal

DATA = Path(__file__).resolve().parents[3] / "data/can"
DRIVE = {layout.name: layout for layout in read(DATA / "drive.dbc", j1939=False)}
TRUCK = {layout.name: layout for layout in read(DATA / "truck.dbc", j1939=False)}
ORACLE = cantools.database.can.Database(strict=False)
ORACLE.add_dbc_file(str(DATA / "drive.dbc"), encoding="utf-8")


def readings(layout: Layout, data: bytes) -> dict[str, Reading]:
    found = decoded(layout, layout.case_of(data), data)
    return {signal.name: reading for signal, reading in found}


def field(length: int, words: dict[int, str] | None = None, *, signed: bool = False) -> Signal:
    return Signal(
        name="s",
        unit="1",
        shift=0,
        length=length,
        big_endian=False,
        signed=signed,
        is_float=False,
        scale=1.0,
        offset=0.0,
        words=words or {},
        multiplexer=None,
        cases=frozenset(),
    )


@given(name=st.sampled_from(sorted(DRIVE)), data=st.binary(max_size=64))
def test_every_frame_says_what_cantools_reads_in_it(name: str, data: bytes) -> None:
    layout = DRIVE[name]
    message = ORACLE.get_message_by_name(name)
    found = readings(layout, data)

    if len(data) < layout.length:
        assert {reading.quality for reading in found.values()} <= {Quality.MALFORMED}
        return
    try:
        expected = message.decode_simple(data)
    except cantools.database.DecodeError:
        return  # cantools reads nothing in a case that it does not know
    assert found.keys() == expected.keys()
    for signal, reading in found.items():
        value = expected[signal]
        if isinstance(value, float) and not math.isfinite(value):
            assert reading.quality is Quality.MALFORMED
        elif isinstance(reading.value, float):
            assert reading.value == pytest.approx(value)
        else:
            assert reading.value == str(value)


@given(name=st.sampled_from(sorted(TRUCK)), data=st.binary(min_size=0, max_size=8))
def test_what_is_not_available_on_j1939_never_has_a_value(name: str, data: bytes) -> None:
    layout = TRUCK[name]
    for signal, reading in decoded(layout, layout.case_of(data), data):
        assert (reading.value is None) is not (reading.quality is Quality.OK)
        if layout.case_of(data) == SHORT:
            assert reading.quality is Quality.MALFORMED
            continue
        bits = signal.bits(layout.numbers(data))
        ones = (1 << signal.length) - 1
        if bits == ones and (signal.length >= 8 or not signal.words):
            assert reading.quality is Quality.ABSENT
        if signal.length % 8 == 0 and bits >> signal.length - 8 == 0xFE:
            assert reading.quality is Quality.MALFORMED


# -- SAE J1939-71, table 1 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "bits", "quality"),
    [
        (8, 0xFA, None),
        (8, 0xFB, Quality.MALFORMED),
        (8, 0xFD, Quality.MALFORMED),
        (8, 0xFE, Quality.MALFORMED),
        (8, 0xFF, Quality.ABSENT),
        (16, 0xFAFF, None),
        (16, 0xFB00, Quality.MALFORMED),
        (16, 0xFE01, Quality.MALFORMED),
        (16, 0xFF00, Quality.ABSENT),
        (24, 0xFAFFFF, None),
        (32, 0xFAFFFFFF, None),
        (32, 0xFE000000, Quality.MALFORMED),
        (32, 0xFF000000, Quality.ABSENT),
        (1, 1, None),
        (2, 0b01, None),
        (2, 0b10, Quality.MALFORMED),
        (2, 0b11, Quality.ABSENT),
        (4, 0b1101, None),
        (4, 0b1110, Quality.MALFORMED),
        (4, 0b1111, Quality.ABSENT),
        (12, 0xFFD, None),
        (12, 0xFFF, Quality.ABSENT),
        (64, 2**64 - 2, None),
        (64, 2**64 - 1, Quality.ABSENT),
    ],
)
def test_the_ranges_of_a_parameter(length: int, bits: int, quality: Quality | None) -> None:
    reading = indicated(field(length), bits)
    assert (None if reading is None else reading.quality) is quality


@pytest.mark.parametrize(
    ("length", "bits", "word", "expected"),
    [
        (8, 0xFB, "park", Reading("park")),
        (8, 0xFE, "sensor broken", Reading(None, Quality.MALFORMED, "sensor broken")),
        (8, 0xFF, "nothing", Reading(None, Quality.ABSENT, "not available")),
        (2, 3, "speed/torque limit", Reading("speed/torque limit")),
        (2, 3, "Not available", Reading(None, Quality.ABSENT, "not available")),
        (2, 3, "Take no action", Reading(None, Quality.ABSENT, "not available")),
        (2, 2, "Error", Reading(None, Quality.MALFORMED, "Error")),
        (2, 2, "torque control", Reading("torque control")),
    ],
)
def test_what_the_database_calls_a_state_counts(
    length: int, bits: int, word: str, expected: Reading
) -> None:
    assert indicated(field(length, {bits: word}), bits) == expected


def test_a_truck_frame_in_whole() -> None:
    found = readings(TRUCK["VDHR"], bytes.fromhex("80841E00 FB FFFFFF"))
    assert found["TotalVehicleDistance"] == Reading(10_000.0)
    assert found["TransCurrentGear"] == Reading("park")


# -- values --------------------------------------------------------------------------------------


def test_a_word_stands_for_a_negative_value_too() -> None:
    assert value_of(field(4, {-1: "reverse"}, signed=True), 0xF) == Reading("reverse")


def test_a_whole_number_that_json_cannot_carry_is_told_digit_by_digit() -> None:
    assert value_of(field(64), 2**63 + 1) == Reading("9223372036854775809")


@pytest.mark.parametrize("pattern", ["7FC00000", "7F800000", "FF800000"])
def test_what_is_not_a_number_is_malformed(pattern: str) -> None:
    data = bytes.fromhex(pattern)[::-1] + bytes(8)
    assert readings(DRIVE["Precise"], data)["Pressure"].quality is Quality.MALFORMED


def test_an_empty_frame_of_a_message_with_signals_is_malformed() -> None:
    found = readings(DRIVE["Engine"], b"")
    assert found["EngineSpeed"].detail == "the frame has 0 bytes, the message 8"
    assert len(found) == 5


def test_a_short_frame_of_a_multiplexed_message_speaks_for_no_case() -> None:
    assert readings(DRIVE["Cells"], b"\x01").keys() == {"Group", "Alive"}


def test_an_empty_message_has_nothing_to_say() -> None:
    assert readings(DRIVE["Pulse"], b"") == {}


# -- multiplexers --------------------------------------------------------------------------------


def test_only_the_signals_of_its_case_are_in_a_frame() -> None:
    found = readings(DRIVE["Cells"], bytes.fromhex("01 07 A00F 00000000"))
    assert {name: reading.value for name, reading in found.items()} == {
        "Group": 1.0,
        "Alive": 7.0,
        "CellVoltage2": 4.0,
    }


def test_a_case_that_the_database_does_not_know_has_the_common_signals() -> None:
    assert readings(DRIVE["Cells"], bytes([9] + [0] * 7)).keys() == {"Group", "Alive"}


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (0x21, {"Outer", "Inner", "Deep"}),
        (0x51, {"Outer", "Inner", "Deep"}),
        (0x31, {"Outer", "Inner"}),
        (0x23, {"Outer", "Plain"}),
        (0x20, {"Outer"}),
    ],
)
def test_multiplexers_in_multiplexers(first: int, names: set[str]) -> None:
    assert readings(DRIVE["Nested"], bytes([first] + [0] * 7)).keys() == names


def test_there_are_no_more_cases_than_the_database_has() -> None:
    cases = {DRIVE["Nested"].case_of(bytes([first] + [0] * 7)) for first in range(256)}
    assert len(cases) <= 6
