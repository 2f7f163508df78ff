"""What changed between two scans of a car."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.manage.difference import compare as compare_modules
from nexus_agent.protocol import Quality
from nexus_agent.protocol.catalogue.scans import Codes, Module

Modules = Mapping[str, Mapping[str, Codes]]


def compare(before: Modules, after: Modules) -> dict[str, list[dict[str, Any]]]:
    found = compare_modules(listed(before), listed(after))
    return {
        "fixed": [each.document() for each in found.fixed],
        "remaining": [each.document() for each in found.remaining],
        "permanent": [each.document() for each in found.permanent],
        "new": [each.document() for each in found.new],
        "unknown": [each.document() for each in found.unknown],
    }


def listed(modules: Modules) -> list[Module]:
    return [Module(ecu=ecu, answers=dict(answers)) for ecu, answers in modules.items()]


def said(quality: Quality) -> Codes:
    return Codes(quality=quality, codes=())


def ok(*codes: str) -> Codes:
    return Codes(quality=Quality.OK, codes=codes)


ABSENT = said(Quality.ABSENT)


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

    assert diff["fixed"] == [{"code": "P0301", "ecu": "7E8"}, {"code": "U0123", "ecu": "7E8"}]
    assert diff["remaining"] == [{"code": "P0302", "ecu": "7E8", "kinds": ["stored"]}]
    assert diff["permanent"] == [{"code": "P0420", "ecu": "7E8", "kinds": ["permanent"]}]
    assert diff["new"] == [{"code": "P0171", "ecu": "7E8", "kinds": ["stored"]}]
    assert diff["unknown"] == []


def test_a_code_is_not_permanent_only_while_the_stored_ones_are_unread() -> None:
    diff = compare(module(ok("P0420")), module(ABSENT, permanent=ok("P0420")))

    assert diff["permanent"] == []
    assert diff["remaining"] == [{"code": "P0420", "ecu": "7E8", "kinds": ["permanent"]}]


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
    diff = compare(module(ok("P0301")), module(said(quality)))

    assert diff["fixed"] == []
    assert diff["unknown"] == [unknown("stored", "after", quality, why, "P0301")]


def test_a_kind_that_nobody_was_asked_for_is_told_as_such() -> None:
    diff = compare({"7E8": {"stored": ok("P0301"), "pending": ok()}}, module(ok("P0301")))

    assert diff["unknown"] == [unknown("permanent", "before", "absent", "not asked")]


def test_a_pending_code_is_not_fixed_while_the_stored_ones_are_unread() -> None:
    diff = compare(module(ok(), pending=ok("P0301")), module(ABSENT))

    assert diff["fixed"] == []


def test_a_control_unit_that_vanished_has_fixed_nothing() -> None:
    diff = compare(module(ok("P0301")), {})

    assert diff["fixed"] == []
    assert [entry["kind"] for entry in diff["unknown"]] == ["stored", "pending", "permanent"]


CODES = st.sets(st.sampled_from(["P0301", "P0420", "U0123"]), max_size=3)
ANSWERS = st.one_of(
    CODES.map(lambda codes: ok(*sorted(codes))),
    st.sampled_from([Quality.ABSENT, Quality.REFUSED, Quality.MALFORMED]).map(said),
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
    fixed = {(entry["ecu"], entry["code"]) for entry in diff["fixed"]}
    unknown = {(entry["ecu"], code) for entry in diff["unknown"] for code in entry["codes"]}
    present = {
        (entry["ecu"], entry["code"])
        for entry in (*diff["remaining"], *diff["permanent"], *diff["new"])
    }

    assert present == seen(after)
    assert fixed | unknown == seen(before) - seen(after)
    assert not fixed & unknown


# -- by several ways ---------------------------------------------------------------------------


def test_a_control_unit_is_another_one_when_it_is_asked_another_way() -> None:
    before = {**module(ok("P0301")), "UDS 7E8": {"stored": ok("P0301-11"), "pending": ok()}}
    after = {**module(ok()), "UDS 7E8": {"stored": ok("P0301-11"), "pending": ok()}}

    diff = compare(before, after)

    assert diff["fixed"] == [{"code": "P0301", "ecu": "7E8"}]
    assert [(code["ecu"], code["code"]) for code in diff["remaining"]] == [("UDS 7E8", "P0301-11")]
    assert diff["unknown"] == []


def test_a_way_that_was_not_gone_this_time_is_told_as_not_asked() -> None:
    before = {"DoIP 1010": {"stored": ok("U0100-00")}, **module(ok())}

    diff = compare(before, module(ok()))

    assert diff["fixed"] == []
    (entry,) = diff["unknown"]
    assert (entry["ecu"], entry["why"], entry["codes"]) == ("DoIP 1010", "not asked", ["U0100-00"])


def test_a_control_unit_that_only_one_scan_met_did_not_answer_in_the_other() -> None:
    diff = compare(
        {"UDS 7E8": {"stored": ok()}}, {"UDS 7E8": {"stored": ok()}, "UDS 7EA": {"stored": ok()}}
    )

    assert [(each["ecu"], each["why"]) for each in diff["unknown"]] == [
        ("UDS 7EA", "did not answer")
    ]


def test_whether_a_fault_is_there_now_is_told_where_it_is_known() -> None:
    stored = Codes(quality=Quality.OK, codes=("P0301-11", "P0302-11"), active=("P0302-11",))

    diff = compare({"UDS 7E8": {"stored": ok()}}, {"UDS 7E8": {"stored": stored}})

    assert [(each["code"], each["active"]) for each in diff["new"]] == [
        ("P0301-11", False),
        ("P0302-11", True),
    ]
