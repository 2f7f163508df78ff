"""What the chaos suites call lost, visible twice and out of order."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.promises import Lane, Number, judge, noted

LANE = Lane("box-1", 7, 0)


def test_what_was_promised_and_has_come_is_well() -> None:
    verdict = judge({LANE: {1, 2, 3}}, {LANE: [1, 2, 3]})
    assert (verdict.promised, verdict.lost, verdict.twice, verdict.astray) == (3, [], [], [])


def test_what_was_not_promised_may_come_or_not() -> None:
    verdict = judge({LANE: {1, 4}}, {LANE: [1, 2, 4], LANE._replace(lane=1): [1]})
    assert (verdict.promised, verdict.lost, verdict.twice) == (2, [], [])


def test_a_promised_number_that_has_not_come_is_lost() -> None:
    assert judge({LANE: {1, 2, 3}}, {LANE: [1, 3]}).lost == [Number(LANE, 2)]


def test_a_lane_of_which_nothing_came_is_lost() -> None:
    assert judge({LANE: {1, 2}}, {}).lost == [Number(LANE, 1), Number(LANE, 2)]


def test_a_number_that_is_there_twice_is_told_even_if_it_was_not_promised() -> None:
    assert judge({}, {LANE: [1, 2, 2, 3]}).twice == [Number(LANE, 2)]


def test_a_number_behind_a_later_one_is_astray() -> None:
    assert judge({}, {LANE: [1, 3, 2]}).astray == [Number(LANE, 2)]


def test_notes_are_ranges_of_a_life_and_a_lane(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("7 0 1 1\n7 0 4 6\n7 1 1 2\n")
    found = noted("box-1", tmp_path / "notes")
    assert found == {LANE: {1, 4, 5, 6}, LANE._replace(lane=1): {1, 2}}
