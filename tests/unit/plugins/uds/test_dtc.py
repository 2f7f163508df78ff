"""Trouble codes over UDS: what the bytes say, and nothing that they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.uds import dtc
from nexus_plugins.uds.reply import Reply


def reply(text: str) -> Reply:
    return Reply(Quality.OK, bytes.fromhex(text))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("030111", "P0301-11"),
        ("412345", "C0123-45"),
        ("9A1F00", "B1A1F-00"),
        ("C15587", "U0155-87"),
        ("FFFFFF", "U3FFF-FF"),
    ],
)
def test_codes_are_named_as_sae_j2012_da_has_it(raw: str, code: str) -> None:
    assert dtc.code_of(bytes.fromhex(raw), None) == code


def test_what_is_coded_otherwise_is_not_interpreted() -> None:
    assert dtc.code_of(bytes.fromhex("6E0003"), 0x02) == "DTC 6E0003, format 02"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0x08, "stored"), (0x0C, "stored"), (0x04, "pending"), (0x01, "pending"), (0x50, None)],
)
def test_the_status_says_which_kind(status: int, kind: str | None) -> None:
    assert dtc.Dtc(b"\x03\x01\x11", status).kind == kind


def test_bits_that_are_not_kept_say_nothing() -> None:
    listing = dtc.read(reply("08 03011105 03021109"))

    assert [each.status for each in listing.dtcs] == [0x00, 0x08]
    assert {kind: codes.codes for kind, codes in listing.answers(None).items()} == {
        "stored": ("P0302-11",)
    }
    assert listing.answers(None)["stored"].active is None, "testFailed is not kept"


def test_places_that_are_not_used_are_no_codes() -> None:
    assert dtc.read(reply("FF 00000009 030111FF")).answers(None)["stored"].codes == ("P0301-11",)


@pytest.mark.parametrize("text", ["", "FF01", "FF0301", "FF03011109AA", "50 03011150"])
def test_what_is_not_whole_is_no_clean_control_unit(text: str) -> None:
    listing = dtc.read(reply(text))

    assert listing.quality is Quality.MALFORMED
    assert {codes.quality for codes in listing.answers(None).values()} == {Quality.MALFORMED}


def test_silence_and_refusal_are_told_for_both_kinds() -> None:
    answers = dtc.read(Reply(Quality.REFUSED, detail="why")).answers(None)

    assert {kind: (codes.quality, codes.detail) for kind, codes in answers.items()} == {
        "stored": (Quality.REFUSED, "why"),
        "pending": (Quality.REFUSED, "why"),
    }


@given(st.binary(max_size=200))
def test_no_code_is_invented(data: bytes) -> None:
    answers = dtc.read(Reply(Quality.OK, data)).answers(None)

    told = {dtc.code_of(data[i : i + 3], None) for i in range(1, len(data) - 3, 4)}
    for codes in answers.values():
        assert set(codes.codes) <= told
        assert set(codes.active or ()) <= set(codes.codes)
        assert not codes.codes or codes.quality is Quality.OK


@given(st.binary(max_size=8))
def test_the_format_is_told_or_not_known(data: bytes) -> None:
    coding = dtc.coding_of(Reply(Quality.OK, data))

    assert coding is None or (len(data) == 4 and coding == data[1])
