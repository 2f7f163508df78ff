from __future__ import annotations

import j1939  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.j1939.name import Addresses, Name

ENGINE, OTHER = Name(0x8000000000000001), Name(0x0000000000000002)


@given(st.integers(0, 2**64 - 1))
def test_the_fields_are_where_another_implementation_has_them(value: int) -> None:
    value &= ~(1 << 48)  # reserved, and nothing there
    ours, theirs = Name(value), j1939.Name(value=value)

    assert (
        ours.identity,
        ours.manufacturer,
        ours.ecu_instance,
        ours.function_instance,
        ours.function,
        ours.vehicle_system,
        ours.vehicle_system_instance,
        ours.industry_group,
        ours.arbitrary_address,
    ) == (
        theirs.identity_number,
        theirs.manufacturer_code,
        theirs.ecu_instance,
        theirs.function_instance,
        theirs.function,
        theirs.vehicle_system,
        theirs.vehicle_system_instance,
        theirs.industry_group,
        bool(theirs.arbitrary_address_capable),
    )
    assert ours.data() == bytes(theirs.bytes)
    assert Name.read(ours.data()) == ours


def test_a_name_is_16_digits_for_events() -> None:
    assert str(Name(0xAB)) == "00000000000000AB"


def test_a_claim_that_is_not_8_bytes_is_none() -> None:
    assert Name.read(bytes(7)) is None


def test_a_function_has_words_and_its_instance() -> None:
    assert Name(3 << 40).words() == "transmission"
    assert Name(1 << 35).words() == "engine #2"


def test_a_function_that_depends_on_the_industry_has_no_words() -> None:
    assert Name(129 << 40).words() == "diagnostic tool"
    assert Name(2 << 60 | 129 << 40).words() is None
    assert Name(127 << 40).words() is None


def test_who_claims_an_address_has_it() -> None:
    addresses = Addresses()
    addresses.claim(0, ENGINE)
    addresses.claim(0, OTHER)

    assert addresses.get(0) == OTHER
    assert addresses.known() == {0}


def test_who_moves_has_left_the_other_address() -> None:
    addresses = Addresses()
    addresses.claim(0x80, ENGINE)
    addresses.claim(0x81, ENGINE)

    assert addresses.known() == {0x81}


def test_who_cannot_claim_has_no_address() -> None:
    addresses = Addresses()
    addresses.claim(0x80, ENGINE)
    addresses.claim(0xFE, ENGINE)

    assert addresses.known() == frozenset()
