"""Wanted ranges: merged, given out once, and asked for again only when that makes sense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.protocol import Stream
from nexus_agent.sync.wanted import RANGES, Wanted, Wish

EVENT = Stream.EVENT
spans = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda s: (s[0], s[0] + s[1])), max_size=8
)


def everything(wanted: Wanted, now: float = 0.0) -> list[tuple[int, int]]:
    found = []
    while wish := wanted.first(lambda _: True):
        found.append((wish.first, wish.last))
        wanted.answer(wish, now)
    return found


def numbers(ranges: list[tuple[int, int]]) -> list[int]:
    return [n for first, last in ranges for n in range(first, last + 1)]


@given(spans, spans)
def test_every_wanted_number_is_given_out_once_and_in_order(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    wanted = Wanted(10)
    wanted.add(EVENT, 1, one, 0)
    wanted.add(EVENT, 1, two, 0)
    assert numbers(everything(wanted)) == sorted({*numbers(one), *numbers(two)})


@given(spans, spans)
def test_what_was_answered_lately_is_not_given_out_again(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    wanted = Wanted(10)
    wanted.add(EVENT, 1, one, 0)
    everything(wanted, now=0)
    wanted.add(EVENT, 1, two, 9)
    assert numbers(everything(wanted, now=9)) == sorted({*numbers(two)} - {*numbers(one)})


def test_a_range_may_be_answered_in_parts() -> None:
    wanted = Wanted(10)
    wanted.add(EVENT, 1, [(1, 10)], 0)
    wanted.answer(Wish(EVENT, 1, 1, 4), 0)
    assert everything(wanted) == [(5, 10)]


def test_what_is_still_missing_later_is_given_out_again() -> None:
    wanted = Wanted(10)
    wanted.add(EVENT, 1, [(1, 4)], 0)
    everything(wanted, now=0)
    wanted.add(EVENT, 1, [(1, 4)], 10)
    assert everything(wanted) == [(1, 4)]


def test_a_new_session_answers_anew() -> None:
    wanted = Wanted(10)
    wanted.add(EVENT, 1, [(1, 4)], 0)
    everything(wanted, now=0)
    wanted.begin()
    wanted.add(EVENT, 1, [(1, 4)], 1)
    assert everything(wanted) == [(1, 4)]


def test_urgent_streams_and_old_epochs_come_first_and_held_ones_wait() -> None:
    wanted = Wanted(10)
    for stream, epoch in [(Stream.LOG, 1), (EVENT, 2), (EVENT, 1), (Stream.ALERT, 3)]:
        wanted.add(stream, epoch, [(1, 1)], 0)
    order = []
    while wish := wanted.first(lambda stream: stream is not Stream.LOG):
        order.append((wish.stream, wish.epoch))
        wanted.answer(wish, 0)
    assert order == [(Stream.ALERT, 3), (EVENT, 1), (EVENT, 2)]
    assert len(wanted) == 1


def test_it_does_not_grow_without_bound() -> None:
    wanted = Wanted(10)
    for epoch in range(1, 60):
        wanted.add(EVENT, epoch, [(n * 2, n * 2) for n in range(1, 65)], 0)
    assert len(wanted) <= RANGES + 60
