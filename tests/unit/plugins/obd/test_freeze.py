"""Freeze frames: an answer counts only for the frame that it names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.freeze import Cause, cause_of, framed


def reply(text: str) -> Reply:
    return Reply("7E8", Quality.OK, (bytes.fromhex(text),))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("42 02 01 0301", Cause(Quality.OK, "P0301")),
        ("42 02 01 0000", Cause(Quality.OK)),
        (
            "42 02 00 0301",
            Cause(Quality.MALFORMED, detail="an answer about another frame"),
        ),
        ("42 02", Cause(Quality.MALFORMED, detail="an answer about another frame")),
        ("42 02 01 03", Cause(Quality.MALFORMED, detail="1 data bytes, 2 expected")),
    ],
)
def test_a_frame_names_the_code_that_caused_it(text: str, cause: Cause) -> None:
    assert cause_of(reply(text), 1) == cause


def test_a_refusal_is_not_an_empty_frame() -> None:
    refused = Reply("7E8", Quality.REFUSED, detail="NRC 0x12", nrc=0x12)

    assert cause_of(refused, 0) == Cause(Quality.REFUSED, detail="NRC 0x12")


@given(number=st.integers(0, 255), data=st.binary(max_size=12))
def test_any_bytes_are_of_the_frame_or_malformed(number: int, data: bytes) -> None:
    found = framed(Reply("7E8", Quality.OK, (b"\x42\x0c" + data,)), number)

    if data[:1] == bytes([number]):
        assert found.payload == b"\x42\x0c" + data[1:]
    else:
        assert (found.quality, found.messages) == (Quality.MALFORMED, ())


@given(number=st.integers(0, 255), data=st.binary(max_size=6))
def test_any_bytes_are_a_cause_or_malformed(number: int, data: bytes) -> None:
    found = cause_of(Reply("7E8", Quality.OK, (b"\x42\x02" + data,)), number)

    assert found.quality in {Quality.OK, Quality.MALFORMED}
    assert found.code is None or (found.quality is Quality.OK and len(found.code) == 5)
