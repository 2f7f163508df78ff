"""The clock of a box whose wall time cannot be trusted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nexus_agent import clock as module
from nexus_agent.clock import BUILT, Clock

HOUR = 3_600_000_000_000
YEAR = 365 * 24 * HOUR


@pytest.fixture(autouse=True)
def synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_synchronised", lambda _since: True)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The machine's wall time, ns: set its one element."""
    now = [BUILT + YEAR]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    return now


def test_a_good_wall_time_is_taken_as_it_is(wall: list[int]) -> None:
    stamp = Clock().stamp()
    assert (stamp.wall, stamp.synced) == (wall[0], True)
    assert stamp.boot == Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def test_a_box_in_1970_counts_on_from_the_floor_and_says_so(wall: list[int]) -> None:
    wall[0] = HOUR
    clock = Clock()
    first, second = clock.stamp(), clock.stamp()
    assert BUILT <= first.wall < second.wall < BUILT + HOUR
    assert second.wall - first.wall == second.mono - first.mono
    assert not first.synced


@pytest.mark.parametrize("given", ["at the start", "later"])
def test_time_never_falls_below_what_was_written_down(
    wall: list[int], given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_synchronised", lambda _since: False)
    floor = wall[0] + HOUR
    clock = Clock(floor) if given == "at the start" else Clock()
    clock.raise_floor(floor if given == "later" else 0)
    stamp = clock.stamp()
    assert floor <= stamp.wall < floor + HOUR
    assert not stamp.synced


def test_without_synchronisation_it_goes_on_from_the_last_true_time(
    wall: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    true = clock.stamp().wall
    monkeypatch.setattr(module, "_synchronised", lambda _since: False)
    wall[0] -= 10 * YEAR
    stamp = clock.stamp()
    assert true <= stamp.wall < true + HOUR
    assert (stamp.synced, clock.floor) == (False, true)


def test_the_floor_is_never_ahead_of_when_it_was_raised(
    wall: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall[0], mono = 0, [5 * HOUR]
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: mono[0])
    clock = Clock()
    mono[0] += HOUR
    clock.raise_floor(BUILT + YEAR)
    assert clock.stamp().wall == BUILT + YEAR


def test_the_wall_time_counts_again_once_it_was_set_right(wall: list[int]) -> None:
    wall[0] = HOUR
    clock = Clock()
    clock.stamp()
    wall[0] = BUILT + YEAR
    stamp = clock.stamp()
    assert (stamp.wall, stamp.synced) == (wall[0], True)


def test_a_synchronised_clock_is_believed_below_the_floor(wall: list[int]) -> None:
    """A clock that was wrong by years must not keep the right one out for years."""
    stamp = Clock(wall[0] + 10 * YEAR).stamp()
    assert (stamp.wall, stamp.synced) == (wall[0], True)


def test_a_step_of_the_clock_asks_the_kernel_again(
    wall: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    assert clock.stamp().synced
    monkeypatch.setattr(module, "_synchronised", lambda _since: False)
    wall[0] += 10 * YEAR
    assert not clock.stamp().synced


def test_monotonic_time_goes_on_whatever_the_wall_does(wall: list[int]) -> None:
    clock, monos = Clock(), []
    for jump in (0, -YEAR, 3 * YEAR, -2 * YEAR):
        wall[0] += jump
        monos.append(clock.stamp().mono)
    assert monos == sorted(monos)


def test_the_kernel_is_not_asked_for_every_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    assert clock.stamp().synced
    monkeypatch.setattr(module, "_synchronised", lambda _since: pytest.fail("asked again"))
    assert all(clock.stamp().synced for _ in range(100))
