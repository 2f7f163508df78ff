"""How codes changed between two scans: what one of them does not know, nobody claims."""

from __future__ import annotations

import pytest

from nexus_console.vehicles.difference import Outcome, difference
from nexus_console.vehicles.scans import KINDS, Answer, Answers, Origin, Scan

CODE = "P0301"
SILENT = Answer("absent", frozenset())
CLEAN = Answer("ok", frozenset())
SHOWN = Answer("ok", frozenset({CODE}))


def found(*kinds: str) -> dict[str, Answer]:
    return {kind: SHOWN if kind in kinds else CLEAN for kind in KINDS}


def scan(time: int, answers: Answers) -> Scan:
    return Scan(Origin(time, 1, time, f"s{time}"), {"7E8": answers})


@pytest.mark.parametrize(
    ("before", "after", "outcome", "unsaid"),
    [
        (found(), found("stored"), Outcome.NEW, {}),
        (found("stored"), found("stored"), Outcome.REMAINING, {}),
        (found("pending"), found("stored"), Outcome.REMAINING, {}),
        (found("stored"), found(), Outcome.FIXED, {}),
        (found("stored", "permanent"), found("permanent"), Outcome.PERMANENT, {}),
        (found("permanent"), found("permanent"), Outcome.REMAINING, {}),
        (found("stored"), {"stored": SILENT}, Outcome.UNKNOWN, {"stored": "did not answer"}),
        (found("pending"), {"stored": CLEAN}, Outcome.UNKNOWN, {"pending": "not asked"}),
        (
            {"stored": Answer("refused", frozenset())},
            found("stored"),
            Outcome.UNKNOWN,
            {"stored": "refused"},
        ),
    ],
)
def test_a_code_is_judged_by_what_both_scans_know(
    before: Answers, after: Answers, outcome: Outcome, unsaid: dict[str, str]
) -> None:
    (change,) = difference(scan(1, before), scan(2, after))
    assert (change.outcome, change.unsaid) == (outcome, unsaid)


def test_a_module_that_was_not_asked_fixes_nothing() -> None:
    after = Scan(Origin(2, 1, 2, "s2"), {"7E9": found()})
    (change,) = difference(scan(1, found("stored")), after)
    assert change.outcome is Outcome.UNKNOWN
    assert change.unsaid == {"stored": "not asked"}
