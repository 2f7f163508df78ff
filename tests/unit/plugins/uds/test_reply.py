"""An answer belongs to its question, or it is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.uds import reply

ASK = b"\x22\xf1\x87"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x11, "NRC 0x11, service not supported"),
        (0x22, "NRC 0x22, conditions not correct"),
        (0x33, "NRC 0x33, security access denied"),
        (0x38, "NRC 0x38, secure data transmission required"),
        (0x78, "NRC 0x78, request correctly received, response pending"),
        (0x7F, "NRC 0x7F, service not supported in active session"),
        (0xF5, "NRC 0xF5, a reason of the maker's own"),
    ],
)
def test_negative_responses_are_named(code: int, words: str) -> None:
    said = reply.read(ASK, bytes([0x7F, 0x22, code]), 2)

    assert said is not None
    assert (said.quality, said.detail) == (Quality.REFUSED, words)


@pytest.mark.parametrize(
    "payload", [b"", b"\x62\xf1\x88A", b"\x7f\x19\x11", b"\x59\x02", b"\x7f", b"\x7f\x7f\x7f"]
)
def test_answers_to_other_questions_are_none(payload: bytes) -> None:
    assert reply.read(ASK, payload, 2) is None


@given(st.binary(max_size=30))
def test_a_value_is_never_taken_from_another_answer(payload: bytes) -> None:
    said = reply.read(ASK, payload, 2)

    if said is not None and said.quality is Quality.OK:
        assert payload == b"\x62\xf1\x87" + said.data
    assert said is None or said.quality is Quality.OK or said.data == b""


def test_bytes_that_may_hold_the_vin_are_in_no_repr() -> None:
    assert "1HGCM" not in repr(reply.read(ASK, b"\x62\xf1\x87" + b"1HGCM82633A004352", 2))
