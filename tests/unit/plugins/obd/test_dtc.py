"""Trouble codes: decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.dtc import Codes, code_of, decode

PAIRS = st.tuples(st.integers(0, 255), st.integers(0, 255)).filter(lambda pair: pair != (0, 0))


def reply(*messages: str) -> Reply:
    return Reply("7E8", Quality.OK, tuple(bytes.fromhex(message) for message in messages))


@pytest.mark.parametrize(
    ("pair", "code"),
    [("0301", "P0301"), ("0420", "P0420"), ("C123", "U0123"), ("4A5F", "C0A5F"), ("BFFF", "B3FFF")],
)
def test_two_bytes_make_a_code(pair: str, code: str) -> None:
    high, low = bytes.fromhex(pair)

    assert code_of(high, low) == code


@given(pairs=st.lists(PAIRS, unique=True, max_size=60), padding=st.integers(0, 2))
def test_codes_are_the_same_with_and_without_a_count(
    pairs: list[tuple[int, int]], padding: int
) -> None:
    data = b"".join(bytes(pair) for pair in pairs) + bytes(2 * padding)
    expected = Codes(Quality.OK, tuple(code_of(*pair) for pair in pairs))

    counted = Reply("7E8", Quality.OK, (b"\x43" + bytes([len(pairs)]) + data,))
    assert decode(counted) == expected
    if data:
        assert decode(Reply("10", Quality.OK, (b"\x43" + data,))) == expected


def test_no_codes_is_clean() -> None:
    assert decode(reply("4300")) == Codes(Quality.OK)


@pytest.mark.parametrize("message", ["43", "4301", "43020301", "43000301"])
def test_a_count_that_disagrees_with_the_bytes_is_malformed(message: str) -> None:
    found = decode(reply(message))

    assert (found.quality, found.codes) == (Quality.MALFORMED, ())


def test_several_messages_of_an_older_bus_add_up() -> None:
    found = decode(reply("43030104200133", "43C12300000000"))

    assert found.codes == ("P0301", "P0420", "P0133", "U0123")


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_any_bytes_are_codes_or_malformed(messages: list[bytes]) -> None:
    found = decode(Reply("10", Quality.OK, tuple(b"\x43" + message for message in messages)))

    assert found.quality in {Quality.OK, Quality.MALFORMED}
    assert found.quality is Quality.OK or not found.codes


def test_a_refusal_is_not_clean() -> None:
    assert decode(Reply("7E8", Quality.REFUSED, detail="x", nrc=0x11)).quality is Quality.REFUSED
