"""The life of a trouble code: what scans and clearings say, and that silence says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_console.vehicles.life import Life, State, lives
from nexus_console.vehicles.scans import KINDS, Answer, Clearing, Origin, Scan

ECU, CODE = "7E8", "P0301"
KEY = (ECU, CODE)
SILENT = Answer("absent", frozenset())
CLEAN = Answer("ok", frozenset())
SHOWN = Answer("ok", frozenset({CODE}))
PARTLY = Answer("refused", frozenset({CODE}))
"""Of two questions one was refused, as a truck's unit without DM2 does."""

Said = Scan | Clearing


def scan(time: int, **answers: Answer) -> Scan:
    return Scan(Origin(time, 1, time, f"s{time}"), {ECU: answers})


def scan_of_another(time: int) -> Scan:
    return Scan(Origin(time, 1, time, f"s{time}"), {"7E9": {"stored": CLEAN}})


def found(time: int, *kinds: str) -> Scan:
    """Every service answered; the code was among *kinds*."""
    return scan(time, **{kind: SHOWN if kind in kinds else CLEAN for kind in KINDS})


def cleared(time: int, *ecus: str) -> Clearing:
    return Clearing(Origin(time, 1, time, None), frozenset(ecus or (ECU,)))


def states(told: list[Said]) -> list[str]:
    return [change.state.value for change in lives(told)[KEY].changes]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([found(1, "pending")], ["pending"]),
        ([found(1, "pending"), found(2, "stored", "pending")], ["pending", "confirmed"]),
        ([found(1, "permanent")], ["permanent"]),
        ([found(1, "stored"), found(2)], ["confirmed", "gone"]),
        ([found(1, "pending"), found(2)], ["pending", "gone"]),
        ([found(1, "stored"), cleared(2)], ["confirmed", "cleared"]),
        ([found(1, "stored"), cleared(2), found(3)], ["confirmed", "cleared"]),
        (
            [found(1, "stored"), cleared(2), found(3, "pending"), found(4, "stored")],
            ["confirmed", "cleared", "returned", "returned"],
        ),
        ([found(1, "stored"), found(2), found(3, "stored")], ["confirmed", "gone", "returned"]),
        ([found(1, "stored", "permanent"), cleared(2)], ["confirmed", "permanent"]),
        (
            [found(1, "stored", "permanent"), cleared(2), found(3, "stored", "permanent")],
            ["confirmed", "permanent", "returned"],
        ),
        (
            [found(1, "stored", "permanent"), cleared(2), found(3, "permanent"), found(4)],
            ["confirmed", "permanent", "gone"],
        ),
        ([found(1, "stored"), scan(2, stored=SILENT)], ["confirmed", "unknown"]),
        ([found(1, "stored"), scan_of_another(2)], ["confirmed", "unknown"]),
        ([found(1, "stored"), scan(2, pending=CLEAN)], ["confirmed", "unknown"]),
        (
            [found(1, "stored"), scan(2, stored=SILENT), found(3, "stored")],
            ["confirmed", "unknown", "confirmed"],
        ),
        ([found(1, "stored"), scan(2, stored=SILENT), found(3)], ["confirmed", "unknown", "gone"]),
        (
            [found(1, "stored"), scan(2, stored=SILENT), cleared(3)],
            ["confirmed", "unknown", "cleared"],
        ),
        ([found(1, "stored"), cleared(2, "7E9")], ["confirmed"]),
        ([scan(1, stored=PARTLY)], ["confirmed"]),
        ([scan(1, stored=PARTLY), scan(2, stored=SILENT)], ["confirmed", "unknown"]),
        ([found(1, "stored"), found(2, "stored")], ["confirmed"]),
    ],
)
def test_states_follow_from_what_was_said(told: list[Said], expected: list[str]) -> None:
    assert states(told) == expected


def test_a_permanent_code_that_nobody_had_asked_for_before_a_clearing_has_not_returned() -> None:
    told: list[Said] = [scan(1, stored=SHOWN), cleared(2), found(3, "permanent")]
    assert states(told) == ["confirmed", "cleared", "permanent"]


def test_a_confirmed_code_stays_confirmed_while_only_the_pending_ones_are_told() -> None:
    told: list[Said] = [found(1, "stored", "pending"), scan(2, stored=SILENT, pending=SHOWN)]
    assert states(told) == ["confirmed"]


def test_a_change_says_when_where_and_what_nobody_answered() -> None:
    life = lives([found(1, "stored"), scan(5, stored=Answer("refused", frozenset()))])[KEY]
    assert life.now.origin == Origin(5, 1, 5, "s5")
    assert life.now.unsaid == {"stored": "refused"}
    assert (life.seen, life.checked) == (1, 1)


QUALITIES = ("ok", "ok", "ok", "absent", "refused", "malformed")
ECUS = ("7E8", "7E9")


@st.composite
def answers(draw: st.DrawFn) -> Mapping[str, Answer]:
    said = {}
    for kind in draw(st.sets(st.sampled_from(KINDS))):
        quality = draw(st.sampled_from(QUALITIES))
        codes = draw(st.frozensets(st.sampled_from(["P0301", "P0420"]))) if quality == "ok" else []
        said[kind] = Answer(quality, frozenset(codes))
    return said


@st.composite
def histories(draw: st.DrawFn) -> list[Said]:
    told: list[Said] = []
    for time in range(1, draw(st.integers(1, 12))):
        if draw(st.integers(0, 3)) == 0:
            ecus = draw(st.frozensets(st.sampled_from(ECUS)))
            told.append(Clearing(Origin(time, 1, time, None), ecus))
        else:
            modules = draw(st.dictionaries(st.sampled_from(ECUS), answers()))
            told.append(Scan(Origin(time, 1, time, f"s{time}"), modules))
    return told


def at(told: list[Said], life: Life) -> list[tuple[Said, State]]:
    """What each change rests upon, and the state that it brought."""
    by_time = {one.origin.time: one for one in told}
    return [(by_time[change.origin.time], change.state) for change in life.changes]


@given(histories())
def test_a_code_is_gone_only_where_its_module_said_so(told: list[Said]) -> None:
    for (ecu, code), life in lives(told).items():
        for said, state in at(told, life):
            if state is State.GONE:
                assert isinstance(said, Scan)
                stored = said.answers(ecu)["stored"]
                assert stored.ok
                assert code not in stored.codes


@given(histories())
def test_a_code_is_cleared_only_by_a_clearing_of_its_module(told: list[Said]) -> None:
    for (ecu, _), life in lives(told).items():
        for said, state in at(told, life):
            if state is State.CLEARED:
                assert isinstance(said, Clearing)
                assert ecu in said.ecus


@given(histories())
def test_a_code_returns_only_after_it_was_known_to_be_away(told: list[Said]) -> None:
    away = {State.CLEARED, State.GONE, State.PERMANENT}
    for life in lives(told).values():
        known_away = False
        for said, state in at(told, life):
            assert known_away or state is not State.RETURNED
            known_away = known_away or state in away or isinstance(said, Clearing)


@given(histories())
def test_every_code_that_the_last_scan_shows_is_there(told: list[Said]) -> None:
    scans = [one for one in told if isinstance(one, Scan)]
    known = lives(told)
    if scans and told[-1] is scans[-1]:
        assert all(known[key].now.state.present for key in scans[-1].codes)
        assert all(known[key].seen == scans[-1].origin.time for key in scans[-1].codes)


@given(histories())
def test_what_comes_twice_in_a_row_changes_nothing(told: list[Said]) -> None:
    twice = [one for one in told for _ in range(2)]
    assert {key: life.changes for key, life in lives(twice).items()} == {
        key: life.changes for key, life in lives(told).items()
    }


@given(histories())
def test_a_change_is_one(told: list[Said]) -> None:
    for life in lives(told).values():
        said = [(change.state, change.kinds) for change in life.changes]
        assert all(one != other for one, other in pairwise(said))
