from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.j1939.identifier import DM1, GLOBAL, REQUEST, Identifier, Message, ecu_of


@pytest.mark.parametrize(
    ("can_id", "identifier"),
    [
        (0x18FECA00, Identifier(DM1, 0x00)),
        (0x18EA00F9, Identifier(REQUEST, 0xF9, 0x00)),
        (0x18EAFFF9, Identifier(REQUEST, 0xF9, GLOBAL)),
        (0x1CECFF0B, Identifier(0xEC00, 0x0B, GLOBAL, priority=7)),
        (0x0CF00400, Identifier(0xF004, 0x00, priority=3)),
        (0x19FD8003, Identifier(0x1FD80, 0x03)),
    ],
)
def test_an_identifier_is_read_and_written(can_id: int, identifier: Identifier) -> None:
    assert Identifier.read(can_id) == identifier
    assert identifier.can_id() == can_id


@given(st.integers(0, 0x1FFFFFFF))
def test_every_identifier_is_written_as_it_was_read(can_id: int) -> None:
    assert Identifier.read(can_id).can_id() == can_id


def test_a_control_unit_is_named_by_its_address_in_two_digits() -> None:
    assert ecu_of(0x0B) == "J1939 0B"


def test_the_data_of_a_message_is_in_no_repr() -> None:
    assert "1M8GDM9A" not in repr(Message(0xFEEC, 0, GLOBAL, b"1M8GDM9AXKP042788*"))
