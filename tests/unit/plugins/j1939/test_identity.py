from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.j1939 import identity

VIN = "1M8GDM9AXKP042788"


@pytest.mark.parametrize(
    "data",
    [VIN.encode() + b"*", VIN.encode(), b"\x00" + VIN.lower().encode() + b"*\xff\xff"],
)
def test_a_vin_is_read(data: bytes) -> None:
    found = identity.vin(data)

    assert (found.quality, found.number) == (Quality.OK, VIN)
    assert VIN not in repr(found)


@pytest.mark.parametrize("data", [b"", b"*", b"\xff" * 17, b"\x00" * 8 + b"*"])
def test_nothing_but_filling_is_no_vin(data: bytes) -> None:
    assert identity.vin(data).quality is Quality.ABSENT


@pytest.mark.parametrize(
    "data", [b"1M8GDM9AXKP04278*", b"IM8GDM9AXKP042788*", b"\xe91234567890123456*"]
)
def test_what_cannot_be_a_vin_is_malformed(data: bytes) -> None:
    found = identity.vin(data)

    assert (found.quality, found.number) == (Quality.MALFORMED, None)


def test_a_component_has_its_fields() -> None:
    assert identity.component(b"CMMNS*6C1u17D6*79866321*UNIT 5*") == {
        "make": "CMMNS",
        "model": "6C1u17D6",
        "serial_number": "79866321",
        "unit_number": "UNIT 5",
    }


def test_fields_that_are_empty_or_filled_are_not_there() -> None:
    assert identity.component(b"CMMNS**\xff\xff* *") == {"make": "CMMNS"}


def test_a_field_that_may_be_the_vin_is_not_told() -> None:
    assert identity.component(b"CMMNS*X*" + VIN.encode() + b"*9*") == {
        "make": "CMMNS",
        "model": "X",
        "unit_number": "9",
    }


def test_software_is_all_its_names() -> None:
    assert identity.software(b"\x02ENG 1.4*CAL 7*") == "ENG 1.4, CAL 7"


def test_software_without_a_name_is_none() -> None:
    assert identity.software(b"\x01\xff\xff*") is None


@given(st.binary(max_size=200))
def test_nothing_that_comes_is_too_much(data: bytes) -> None:
    identity.vin(data)
    identity.software(data)
    assert all(text.isprintable() for text in identity.component(data).values())
