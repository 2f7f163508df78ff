from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.j1939 import dm
from nexus_plugins.j1939.dm import Diagnosis, Dtc

OFF = b"\x00\xff"


def read(text: str, older_method: int | None = None) -> Diagnosis:
    found = dm.decode(bytes.fromhex(text), older_method)
    assert found is not None
    return found


def test_a_code_has_its_spn_its_fmi_and_its_count() -> None:
    found = read("04FF 6E000305 FFFF")

    assert found.dtcs == (Dtc(110, 3, 5),)
    assert found.dtcs[0].code == "SPN 110 FMI 3"
    assert found.trouble is None


def test_an_spn_has_19_bits() -> None:
    assert read("00FF 8AF2E70A FFFF").dtcs == (Dtc(0x7F28A, 7, 10),)


def test_a_count_that_is_not_available_is_none() -> None:
    assert read("00FF 6E00037F FFFF").dtcs == (Dtc(110, 3, None),)


@pytest.mark.parametrize(
    "text",
    ["00FF 00000000 FFFF", "00FF FFFFFFFF FFFF", "0000 00000000 0000", "00FF 00000000"],
    ids=["as recommended", "as older control units do", "filled with zeros", "without filling"],
)
def test_no_fault_is_no_fault(text: str) -> None:
    found = read(text)

    assert found.dtcs == ()
    assert found.trouble is None


def test_several_codes_come_once_each_in_their_order() -> None:
    found = read("04FF 6E000301 64000102 6E000304")

    assert found.dtcs == (Dtc(110, 3, 1), Dtc(100, 1, 2))


def test_a_message_of_several_frames_may_be_filled() -> None:
    assert read("04FF 6E000301 64000102 FFFFFF").trouble is None


def test_a_code_that_is_cut_short_leaves_the_others_and_says_so() -> None:
    found = read("04FF 6E000301 640001")

    assert found.dtcs == (Dtc(110, 3, 1),)
    assert found.trouble == "the last code is cut short"


@pytest.mark.parametrize("length", range(6))
def test_what_is_too_short_is_nothing(length: int) -> None:
    assert dm.decode(bytes(length)) is None


@pytest.mark.parametrize(
    ("method", "text"), [(1, "95D9 E384"), (2, "D995 E384"), (3, "CFAE 8384")], ids=str
)
def test_older_notations_are_read_where_they_are_known(method: int, text: str) -> None:
    spn = {1: 0x95D9 << 3 | 7, 2: 0x95D9 << 3 | 7, 3: 4 << 16 | 0xAECF}[method]

    assert read(f"00FF {text} FFFF", method).dtcs == (Dtc(spn, 3, 4),)


def test_an_older_notation_that_is_not_known_is_not_guessed() -> None:
    found = read("00FF 95D9E384 64000102")

    assert found.dtcs == (Dtc(100, 1, 2),)
    assert found.trouble is not None
    assert "`spn_method`" in found.trouble


def test_the_current_notation_is_read_whatever_is_set_for_older_ones() -> None:
    assert read("00FF 6E000305 FFFF", older_method=1).dtcs == (Dtc(110, 3, 5),)


@pytest.mark.parametrize(
    ("states", "flashes", "expected"),
    [
        (0x00, 0xFF, ("off", "off", "off", "off")),
        (0x00, 0x00, ("off", "off", "off", "off")),
        (0x55, 0xFF, ("on", "on", "on", "on")),
        (0x55, 0x00, ("slow flash",) * 4),
        (0x55, 0x55, ("fast flash",) * 4),
        (0xFF, 0xFF, ("not available",) * 4),
        (0xAA, 0xFF, ("not available",) * 4),
        (0x40, 0x3F, ("slow flash", "off", "off", "off")),
        (0x10, 0xFF, ("off", "on", "off", "off")),
        (0x04, 0xFF, ("off", "off", "on", "off")),
        (0x01, 0xFD, ("off", "off", "off", "fast flash")),
    ],
)
def test_lamps(states: int, flashes: int, expected: tuple[str, ...]) -> None:
    found = dm.decode(bytes([states, flashes, 0, 0, 0, 0, 0xFF, 0xFF]))

    assert found is not None
    lamps = found.lamps
    assert (lamps.malfunction, lamps.stop, lamps.warning, lamps.protect) == expected


codes = st.tuples(st.integers(1, 0x7FFFE), st.integers(0, 31), st.integers(0, 126))


@given(st.lists(codes, max_size=20, unique_by=lambda each: each[:2]), st.integers(0, 6))
def test_what_a_control_unit_writes_is_read(given_codes: list[Any], filling: int) -> None:
    data = b"".join(
        spn.to_bytes(3, "little")[:2] + bytes([spn >> 16 << 5 | fmi, count])
        for spn, fmi, count in given_codes
    )
    found = dm.decode(OFF + (data or bytes(4)) + b"\xff" * filling)

    assert found is not None
    assert found.dtcs == tuple(Dtc(*code) for code in given_codes)
    assert found.trouble is None


@given(st.binary(max_size=64), st.sampled_from([None, 1, 2, 3]))
def test_nothing_that_comes_is_too_much(data: bytes, method: int | None) -> None:
    found = dm.decode(data, method)

    assert (found is None) is (len(data) < 6)
    if found is not None:
        assert all(dtc.spn < 2**19 and dtc.fmi < 32 for dtc in found.dtcs)
