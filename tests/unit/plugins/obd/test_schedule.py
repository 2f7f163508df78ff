"""When values are due, on a clock of the test's own."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.obd.schedule import Schedule

INTERVALS = st.dictionaries(st.integers(1, 255), st.floats(0.01, 100), min_size=1, max_size=12)


def test_everything_is_due_at_first_in_its_order() -> None:
    schedule = Schedule()

    assert schedule.due(0, {0x0C: 1, 0x05: 10, 0x04: 1}) == [0x0C, 0x05, 0x04]


def test_what_was_asked_is_due_after_its_interval() -> None:
    schedule = Schedule()
    schedule.due(0, {0x0C: 1})
    schedule.asked(0x0C, 0.3, 1)

    assert schedule.next() == 1
    assert schedule.due(0.9, {0x0C: 1}) == []
    assert schedule.due(1, {0x0C: 1}) == [0x0C]


def test_what_is_late_is_made_up_for_once() -> None:
    schedule = Schedule()
    schedule.due(0, {0x0C: 1})
    schedule.asked(0x0C, 10.5, 1)

    assert schedule.due(10.5, {0x0C: 1}) == [0x0C]
    schedule.asked(0x0C, 10.5, 1)
    assert schedule.due(11.4, {0x0C: 1}) == []


def test_a_shorter_interval_counts_from_now_on() -> None:
    schedule = Schedule()
    schedule.due(0, {0x0C: 600})
    schedule.asked(0x0C, 0, 600)

    assert schedule.due(1, {0x0C: 0.5}) == []
    assert schedule.due(1.5, {0x0C: 0.5}) == [0x0C]


def test_what_is_no_longer_wanted_is_forgotten() -> None:
    schedule = Schedule()
    schedule.due(0, {0x0C: 1, 0x05: 1})

    assert schedule.due(0, {0x05: 1}) == [0x05]
    assert Schedule().next() is None


@given(INTERVALS, st.floats(0.01, 1))
def test_on_any_bus_nothing_starves_and_nothing_comes_too_often(
    intervals: dict[int, float], latency: float
) -> None:
    schedule, now = Schedule(), 0.0
    asked: dict[int, list[float]] = {pid: [] for pid in intervals}
    for _ in range(300):
        due = schedule.due(now, intervals)
        if not due:
            now = schedule.next() or now
            continue
        asked[due[0]].append(now)
        schedule.asked(due[0], now, intervals[due[0]])
        now += latency

    everything = latency * len(intervals)
    for pid, times in asked.items():
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap <= intervals[pid] + everything + latency + 1e-6 for gap in gaps)
        assert len(times) <= now / intervals[pid] + 2
