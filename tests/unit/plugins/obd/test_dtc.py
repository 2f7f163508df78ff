"""Trouble codes: decoding, and what changed between two scans."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.dtc import Codes, Modules, code_of, compare, decode

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


def ok(*codes: str) -> Codes:
    return Codes(Quality.OK, codes)


ABSENT = Codes(Quality.ABSENT)


def module(stored: Codes, pending: Codes | None = None, permanent: Codes | None = None) -> Modules:
    return {
        "7E8": {"stored": stored, "pending": pending or ok(), "permanent": permanent or ok()},
    }


def unknown(kind: str, scan: str, quality: str, why: str, *codes: str) -> dict[str, Any]:
    return {
        "ecu": "7E8",
        "kind": kind,
        "quality": quality,
        "why": why,
        "scan": scan,
        "codes": list(codes),
    }


def test_fixed_remaining_permanent_and_new_are_told_apart() -> None:
    before = module(ok("P0301", "P0302", "P0420", "U0123"), permanent=ok("P0420"))
    after = module(ok("P0171", "P0302"), permanent=ok("P0420"))

    diff = compare(before, after)

    assert diff.fixed == [{"code": "P0301", "ecu": "7E8"}, {"code": "U0123", "ecu": "7E8"}]
    assert diff.remaining == [{"code": "P0302", "ecu": "7E8", "kinds": ["stored"]}]
    assert diff.permanent == [{"code": "P0420", "ecu": "7E8", "kinds": ["permanent"]}]
    assert diff.new == [{"code": "P0171", "ecu": "7E8", "kinds": ["stored"]}]
    assert diff.unknown == []


def test_a_code_is_not_permanent_only_while_the_stored_ones_are_unread() -> None:
    diff = compare(module(ok("P0420")), module(ABSENT, permanent=ok("P0420")))

    assert diff.permanent == []
    assert diff.remaining == [{"code": "P0420", "ecu": "7E8", "kinds": ["permanent"]}]


@pytest.mark.parametrize(
    ("quality", "why"),
    [
        (Quality.ABSENT, "did not answer"),
        (Quality.REFUSED, "refused"),
        (Quality.MALFORMED, "malformed"),
    ],
)
def test_codes_of_a_service_that_was_not_answered_are_unknown_not_fixed(
    quality: Quality, why: str
) -> None:
    diff = compare(module(ok("P0301")), module(Codes(quality)))

    assert diff.fixed == []
    assert diff.unknown == [unknown("stored", "after", quality, why, "P0301")]


def test_a_kind_that_nobody_was_asked_for_is_told_as_such() -> None:
    diff = compare({"7E8": {"stored": ok("P0301"), "pending": ok()}}, module(ok("P0301")))

    assert diff.unknown == [unknown("permanent", "before", "absent", "not asked")]


def test_a_pending_code_is_not_fixed_while_the_stored_ones_are_unread() -> None:
    diff = compare(module(ok(), pending=ok("P0301")), module(ABSENT))

    assert diff.fixed == []


def test_a_control_unit_that_vanished_has_fixed_nothing() -> None:
    diff = compare(module(ok("P0301")), {})

    assert diff.fixed == []
    assert [entry["kind"] for entry in diff.unknown] == ["stored", "pending", "permanent"]


CODES = st.sets(st.sampled_from(["P0301", "P0420", "U0123"]), max_size=3)
ANSWERS = st.one_of(
    CODES.map(lambda codes: ok(*sorted(codes))),
    st.sampled_from([Quality.ABSENT, Quality.REFUSED, Quality.MALFORMED]).map(Codes),
)
SCANS = st.dictionaries(
    st.sampled_from(["7E8", "7E9"]),
    st.fixed_dictionaries({"stored": ANSWERS, "pending": ANSWERS, "permanent": ANSWERS}),
)


@given(before=SCANS, after=SCANS)
def test_every_code_of_both_scans_ends_up_in_one_place(before: Modules, after: Modules) -> None:
    def seen(modules: Modules) -> set[tuple[str, str]]:
        return {
            (ecu, code)
            for ecu, answers in modules.items()
            for codes in answers.values()
            for code in codes.codes
        }

    diff = compare(before, after)
    fixed = {(entry["ecu"], entry["code"]) for entry in diff.fixed}
    unknown = {(entry["ecu"], code) for entry in diff.unknown for code in entry["codes"]}
    present = {
        (entry["ecu"], entry["code"]) for entry in (*diff.remaining, *diff.permanent, *diff.new)
    }

    assert present == seen(after)
    assert fixed | unknown == seen(before) - seen(after)
    assert not fixed & unknown
