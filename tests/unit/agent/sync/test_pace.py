"""The pace on simulated lines: a slow one is never flooded, a fast one is filled."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest

from nexus_agent.sync.pace import CAP_BYTES, FLOOR_BYTES, MESSAGES, URGENT_MESSAGES, Pace, Parcel

KB = 1024


class Line:
    """Carries *rate* bytes a second in order, and answers after *delay* seconds."""

    def __init__(self, rate: float, delay: float) -> None:
        self.rate, self.delay = rate, delay
        self.now = self.free = 0.0
        self.flying: deque[tuple[float, Parcel]] = deque()
        self.waits: list[float] = []
        self.carried = 0

    def run(self, pace: Pace, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while pace.has_room(urgent=False):
                parcel = pace.send(pace.message_bytes, self.now)
                self.free = max(self.free, self.now) + parcel.size / self.rate
                self.flying.append((self.free + self.delay, parcel))
            self.waits.append(self.free - self.now)
            self.now, parcel = self.flying.popleft()
            pace.arrive(parcel, self.now)
            pace.end(parcel)
            self.carried += parcel.size


@pytest.mark.parametrize("rate", [32 * KB, 64 * KB, 256 * KB, 2_000 * KB])
@pytest.mark.parametrize("delay", [0.001, 0.05, 0.3])
def test_no_more_than_an_alert_can_wait_for_is_under_way(rate: float, delay: float) -> None:
    line = Line(rate, delay)
    line.run(Pace(), 60)
    assert max(line.waits) < 1.0


@pytest.mark.parametrize("rate", [32 * KB, 256 * KB, 2_000 * KB])
@pytest.mark.parametrize("delay", [0.001, 0.05, 0.3])
def test_the_line_is_used(rate: float, delay: float) -> None:
    pace, line = Pace(), Line(rate, delay)
    line.run(pace, 20)
    line.carried = 0
    line.run(pace, 20)
    assert line.carried > 0.8 * 20 * rate


def test_a_fast_line_gets_the_whole_window_soon() -> None:
    pace, line = Pace(), Line(100_000 * KB, 0.001)
    line.run(pace, 0.2)
    assert pace.window == CAP_BYTES


def test_a_line_that_gets_slow_is_noticed() -> None:
    pace, line = Pace(), Line(1_000 * KB, 0.02)
    line.run(pace, 10)
    line.rate = 50 * KB
    line.run(pace, 60)
    line.waits.clear()
    line.run(pace, 10)
    assert max(line.waits) < 1.0


def test_a_trickle_says_nothing_against_the_line() -> None:
    pace, line = Pace(), Line(100_000 * KB, 0.001)
    line.run(pace, 0.2)
    while line.flying:
        _, parcel = line.flying.popleft()
        pace.end(parcel)
    for number in range(100):
        parcel = pace.send(200, 10.0 + number)
        pace.arrive(parcel, 10.0 + number + 0.001)
        pace.end(parcel)
    assert pace.window == CAP_BYTES


def test_one_lucky_burst_does_not_open_the_window() -> None:
    pace = Pace()
    sizes = [pace.window]
    for _ in range(4):
        parcel = pace.send(pace.share, 0.0)
        pace.arrive(parcel, 0.0)
        pace.end(parcel)
        sizes.append(pace.window)
    assert all(later <= before * 1.5 for before, later in pairwise(sizes))


def test_an_alert_waits_for_no_bytes_but_messages_are_bounded() -> None:
    pace = Pace()
    pace.send(FLOOR_BYTES * 100, 0.0)
    assert not pace.has_room(urgent=False)
    assert pace.has_room(urgent=True)
    for _ in range(URGENT_MESSAGES - 1):
        pace.send(1, 0.0)
    assert not pace.has_room(urgent=True)


def test_small_messages_are_bounded_too() -> None:
    pace = Pace()
    for _ in range(MESSAGES):
        assert pace.has_room(urgent=False)
        pace.send(1, 0.0)
    assert not pace.has_room(urgent=False)
