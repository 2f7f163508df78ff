"""Data identifiers: text, digits, or nothing; the VIN only where it is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.uds import identification
from nexus_plugins.uds.reply import Reply

VIN = b"1HGCM82633A004352"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"06A 906 032", "06A 906 032"),
        (b"ENGINE\0\0\0", "ENGINE"),
        (b"ABC  \xff\xff", "ABC"),
        (b"\x20\x21\x05\x03", "20210503"),
        (b" !", "2021"),
        (b"\0\0", "0000"),
        (b"\xff\xff", "FFFF"),
        (b"AB\0CD", "4142004344"),
    ],
)
def test_what_is_text_is_told_as_text(data: bytes, text: str) -> None:
    told = identification.decode(0xF187, Reply(Quality.OK, data))

    assert (told.value, told.name, told.did) == (text, "spare_part_number", "F187")


def test_a_makers_own_is_named_by_its_number() -> None:
    assert identification.decode(0xF1A2, Reply(Quality.OK, b"\1")).name == "did_f1a2"


@given(st.binary(max_size=60), st.sampled_from(Quality))
def test_there_is_a_value_only_where_one_was_told(data: bytes, quality: Quality) -> None:
    reply = Reply(quality, data if quality is Quality.OK else b"", "why")
    told = identification.decode(0xF18C, reply)

    assert (told.value is not None) == (quality is Quality.OK and bool(data))


@pytest.mark.parametrize("data", [VIN, VIN + b"\0\0", VIN + b"   "])
def test_a_vin_may_be_filled_up(data: bytes) -> None:
    assert identification.vin_of(Reply(Quality.OK, data)) == (Quality.OK, VIN.decode())


@pytest.mark.parametrize("data", [b"", b"\xff" * 17, VIN[:16], VIN + b"1", VIN.replace(b"1", b"I")])
def test_what_is_no_vin_is_malformed(data: bytes) -> None:
    assert identification.vin_of(Reply(Quality.OK, data)) == (Quality.MALFORMED, None)


@given(st.binary(max_size=24))
def test_no_bytes_but_a_vin_are_one(data: bytes) -> None:
    quality, vin = identification.vin_of(Reply(Quality.OK, data))

    assert (vin is None) is (quality is not Quality.OK)
    assert vin is None or (len(vin) == 17 and vin.encode() in data)
