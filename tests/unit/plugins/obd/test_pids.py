"""Live values: formulas and supported PIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd import pids
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.formulas import Value
from nexus_plugins.obd.pids import PIDS, Reading, read, readings, supported, values_only

Values = tuple[Value | None, ...]


def reply(pid: int, data: bytes) -> Reply:
    return Reply("7E8", Quality.OK, (bytes([0x41, pid]) + data,))


def values(pid: int, data: str) -> Values:
    return tuple(
        reading.value for _, reading in readings(PIDS[pid], reply(pid, bytes.fromhex(data)))
    )


@pytest.mark.parametrize(
    ("pid", "vectors"),
    [
        (0x01, {"00000000": (False, 0), "81076504": (True, 1), "FFFFFFFF": (True, 127)}),
        (0x02, {"0000": ("none",), "0301": ("P0301",), "C123": ("U0123",)}),
        (
            0x03,
            {
                "0000": ("not in use", "not in use"),
                "0200": ("closed loop", "not in use"),
                "0110": ("open loop, engine cold", "closed loop, sensor fault"),
                "03FF": (None, None),
            },
        ),
        (0x04, {"00": (0,), "80": (50.2,), "FF": (100,)}),
        (0x05, {"00": (-40,), "7B": (83,), "FF": (215,)}),
        (0x06, {"00": (-100,), "80": (0,), "FF": (99.22,)}),
        (0x07, {"00": (-100,), "84": (3.12,), "FF": (99.22,)}),
        (0x08, {"00": (-100,), "80": (0,), "FF": (99.22,)}),
        (0x09, {"00": (-100,), "7C": (-3.12,), "FF": (99.22,)}),
        (0x0A, {"00": (0,), "80": (384,), "FF": (765,)}),
        (0x0B, {"00": (0,), "65": (101,), "FF": (255,)}),
        (0x0C, {"0000": (0,), "1AF8": (1726,), "FFFF": (16383.75,)}),
        (0x0D, {"00": (0,), "32": (50,), "FF": (255,)}),
        (0x0E, {"00": (-64,), "80": (0,), "FF": (63.5,)}),
        (0x0F, {"00": (-40,), "3C": (20,), "FF": (215,)}),
        (0x10, {"0000": (0,), "0FA0": (40,), "FFFF": (655.35,)}),
        (0x11, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x12, {"01": ("upstream",), "08": ("on for diagnosis",), "03": (None,)}),
        (0x13, {"00": ("none",), "33": ("B1S1 B1S2 B2S1 B2S2",), "81": ("B1S1 B2S4",)}),
        (0x14, {"0000": (0, -100), "5A80": (0.45, 0), "C8FF": (1, None)}),
        (0x1B, {"0000": (0, -100), "5A90": (0.45, 12.5), "FFFF": (1.275, None)}),
        (0x1C, {"01": ("OBD II (CARB)",), "06": ("EOBD",), "FA": (None,)}),
        (0x1D, {"00": ("none",), "05": ("B1S1 B2S1",), "80": ("B4S2",)}),
        (0x1E, {"00": (False,), "01": (True,), "FE": (False,)}),
        (0x1F, {"0000": (0,), "0101": (257,), "FFFF": (65535,)}),
        (0x21, {"0000": (0,), "0100": (256,), "FFFF": (65535,)}),
        (0x22, {"0000": (0,), "03E8": (79,), "FFFF": (5177.265,)}),
        (0x23, {"0000": (0,), "0100": (2560,), "FFFF": (655350,)}),
        (0x24, {"00000000": (0, 0), "80004000": (1, 2), "FFFFFFFF": (2, 7.9999)}),
        (0x2B, {"00000000": (0, 0), "40008000": (0.5, 4), "FFFFFFFF": (2, 7.9999)}),
        (0x2C, {"00": (0,), "80": (50.2,), "FF": (100,)}),
        (0x2D, {"00": (-100,), "80": (0,), "FF": (99.22,)}),
        (0x2E, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x2F, {"00": (0,), "80": (50.2,), "FF": (100,)}),
        (0x30, {"00": (0,), "10": (16,), "FF": (255,)}),
        (0x31, {"0000": (0,), "0200": (512,), "FFFF": (65535,)}),
        (0x32, {"8000": (-8192,), "0004": (1,), "FFFF": (-0.25,), "7FFF": (8191.75,)}),
        (0x33, {"00": (0,), "65": (101,), "FF": (255,)}),
        (0x34, {"00000000": (0, -128), "80008000": (1, 0), "FFFFFFFF": (2, 127.9961)}),
        (0x3B, {"00000000": (0, -128), "80008100": (1, 1), "FFFFFFFF": (2, 127.9961)}),
        (0x3C, {"0000": (-40,), "1130": (400,), "FFFF": (6513.5,)}),
        (0x3F, {"0000": (-40,), "0190": (0,), "FFFF": (6513.5,)}),
        (0x42, {"0000": (0,), "3610": (13.84,), "FFFF": (65.535,)}),
        (0x43, {"0000": (0,), "00FF": (100,), "FFFF": (25700,)}),
        (0x44, {"0000": (0,), "8000": (1,), "FFFF": (2,)}),
        (0x45, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x46, {"00": (-40,), "28": (0,), "FF": (215,)}),
        (0x47, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x49, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x4C, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x4D, {"0000": (0,), "003C": (60,), "FFFF": (65535,)}),
        (0x4E, {"0000": (0,), "05A0": (1440,), "FFFF": (65535,)}),
        (0x4F, {"00000000": (0, 0, 0, 0), "02088019": (2, 8, 128, 250)}),
        (0x50, {"00000000": (0,), "40000000": (640,), "FFFFFFFF": (2550,)}),
        (0x51, {"01": ("gasoline",), "04": ("diesel",), "EE": (None,)}),
        (0x52, {"00": (0,), "D9": (85.1,), "FF": (100,)}),
        (0x53, {"0000": (0,), "4E20": (100,), "FFFF": (327.675,)}),
        (0x54, {"8000": (-32768,), "0001": (1,), "7FFF": (32767,)}),
        (0x55, {"0080": (-100, 0), "FF00": (99.22, -100)}),
        (0x58, {"8080": (0, 0), "00FF": (-100, 99.22)}),
        (0x59, {"0000": (0,), "0064": (1000,), "FFFF": (655350,)}),
        (0x5A, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x5B, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x5C, {"00": (-40,), "D2": (170,), "FF": (215,)}),
        (0x5D, {"0000": (-210,), "6900": (0,), "FFFF": (301.9922,)}),
        (0x5E, {"0000": (0,), "0190": (20,), "FFFF": (3276.75,)}),
        (0x5F, {"0E": ("heavy duty, Euro IV B1",), "00": (None,)}),
        (0x61, {"00": (-125,), "7D": (0,), "FF": (130,)}),
        (0x62, {"00": (-125,), "E1": (100,), "FF": (130,)}),
        (0x63, {"0000": (0,), "0190": (400,), "FFFF": (65535,)}),
        (0x64, {"007DE1FF7D": (-125, 0, 100, 130, 0)}),
        (0x66, {"0103200000": (25, None), "0300200020": (1, 1), "0000000000": (None, None)}),
        (0x67, {"017B00": (83, None), "037B7C": (83, 84)}),
        (0x7F, {"0500000E100000000000000064": (3600, None, 100)}),
        (0x84, {"00": (-40,), "64": (60,), "FF": (215,)}),
        (0x8D, {"00": (0,), "33": (20,), "FF": (100,)}),
        (0x8E, {"00": (-125,), "7D": (0,), "FF": (130,)}),
        (0x9D, {"00000000": (0, 0), "00640032": (2, 1), "FFFFFFFF": (1310.7, 1310.7)}),
        (0x9E, {"0000": (0,), "0032": (10,), "FFFF": (13107,)}),
        (0xA4, {"02000BB8": (3,), "01F00BB8": (None,), "0200FFFF": (65.535,)}),
        (0xA2, {"0000": (0,), "0320": (25,), "FFFF": (2047.9688,)}),
        (0xA6, {"00000000": (0,), "0012D687": (123456.7,), "FFFFFFFF": (429496729.5,)}),
    ],
)
def test_values_follow_the_standards_formulas(pid: int, vectors: dict[str, Values]) -> None:
    assert {data: values(pid, data) for data in vectors} == vectors


def test_no_two_values_share_a_name() -> None:
    names = [field.name for pid in PIDS.values() for field in pid.fields]

    assert sorted(names) == sorted(set(names))


@given(pid=st.sampled_from(sorted(PIDS)), data=st.binary(max_size=16))
def test_a_wrong_length_is_never_a_value(pid: int, data: bytes) -> None:
    found = [reading for _, reading in readings(PIDS[pid], reply(pid, data))]

    assert len(found) == len(PIDS[pid].fields)
    for reading in found:
        assert (reading.quality is Quality.OK) == (reading.value is not None)
        if len(data) != PIDS[pid].length:
            assert reading.quality is Quality.MALFORMED


@given(data=st.data(), pid=st.sampled_from(sorted(PIDS)))
def test_whole_data_decodes_to_what_an_event_can_carry(data: st.DataObject, pid: int) -> None:
    length = PIDS[pid].length
    raw = data.draw(st.binary(min_size=length, max_size=length))

    for field, reading in pids.decode(PIDS[pid], raw):
        assert len(field.unit) <= 20
        if reading.value is None:
            assert reading.detail


@pytest.mark.parametrize(
    ("pid", "data", "scales", "value"),
    [
        (0x0B, "FF", {0x4F: "00000028"}, 400),
        (0x0B, "FF", {0x4F: "02088000"}, 255),
        (0x10, "FFFF", {0x50: "80000000"}, 1280),
        (0x10, "0FA0", {0x4F: "02088028"}, 40),
        (0x24, "80000000", {0x4F: "04000000"}, 2),
        (0x34, "80000000", {0x4F: "04000000"}, 2),
        (0x44, "8000", {0x4F: "04000000"}, 2),
        (0x0D, "FF", {0x4F: "04000028"}, 255),
    ],
)
def test_a_control_unit_may_set_the_full_scale_of_some_values(
    pid: int, data: str, scales: dict[int, str], value: float
) -> None:
    told = {number: bytes.fromhex(text) for number, text in scales.items()}

    assert read(PIDS[pid], reply(pid, bytes.fromhex(data)), told) == Reading(Quality.OK, value)


def test_a_value_whose_scale_was_not_told_is_no_value() -> None:
    found = read(PIDS[0x0B], reply(0x0B, b"\x80"), {0x4F: None})

    assert (found.quality, found.value) == (Quality.ABSENT, None)
    assert read(PIDS[0x0D], reply(0x0D, b"\x80"), {0x4F: None}).value == 128


def test_a_sensor_that_is_not_used_for_trim_has_no_trim() -> None:
    (_, voltage), (_, trim) = readings(PIDS[0x14], reply(0x14, b"\x5a\xff"))

    assert (voltage.value, trim.quality) == (0.45, Quality.ABSENT)


def test_a_state_that_the_standard_does_not_define_is_no_value() -> None:
    assert read(PIDS[0x51], reply(0x51, b"\xee")) == Reading(
        Quality.MALFORMED, detail="0xEE is no state that J1979 defines"
    )


def test_a_refusal_has_no_value() -> None:
    found = read(PIDS[0x0C], Reply("7E8", Quality.REFUSED, detail="NRC", nrc=0x12))

    assert (found.value, found.quality) == (None, Quality.REFUSED)


def test_bits_name_the_supported_pids() -> None:
    found = supported(0, reply(0, bytes.fromhex("BE3EB811")))

    assert found is not None
    assert values_only(found) == [1, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 17, 19, 20, 21, 28]
    assert 0x20 in found


@given(base=st.sampled_from([0, 0x20, 0x40]), pids=st.sets(st.integers(1, 32)))
def test_any_set_of_supported_pids_survives(base: int, pids: set[int]) -> None:
    word = sum(1 << (32 - pid) for pid in pids)

    found = supported(base, reply(base, word.to_bytes(4, "big")))
    assert found == frozenset(base + pid for pid in pids)


def test_supported_pids_of_the_wrong_length_are_unknown() -> None:
    assert supported(0, reply(0, b"\xff\xff\xff")) is None
