"""The marks of a stream, against a plain set of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nexus_console.ranges import Coverage, Span, overlap, subtract

spans = st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1]))


def numbers(parts: list[Span]) -> list[int]:
    return [n for first, last in parts for n in range(first, last + 1)]


@given(st.lists(spans, max_size=30))
def test_new_parts_are_what_a_set_says(arrivals: list[Span]) -> None:
    coverage, seen = Coverage(), set[int]()
    for first, last in arrivals:
        new = numbers(coverage.add(first, last))
        assert new == [n for n in range(first, last + 1) if n not in seen]
        seen.update(new)


@given(st.lists(spans, max_size=30))
def test_high_water_is_the_end_of_the_unbroken_run(arrivals: list[Span]) -> None:
    coverage = Coverage()
    for span in arrivals:
        coverage.add(*span)
    seen = set(numbers(arrivals))
    expected = next(n for n in range(100) if n + 1 not in seen)
    assert coverage.high_water == expected


@given(st.lists(spans, max_size=30), st.integers(0, 80))
def test_gaps_are_what_is_missing_below_the_highest(arrivals: list[Span], until: int) -> None:
    coverage = Coverage()
    for span in arrivals:
        coverage.add(*span)
    seen = set(numbers(arrivals))
    top = max([until, *seen])
    assert numbers(coverage.gaps(until)) == [n for n in range(1, top + 1) if n not in seen]


@given(st.lists(spans, max_size=30))
def test_spans_above_are_sorted_and_apart(arrivals: list[Span]) -> None:
    coverage = Coverage()
    for span in arrivals:
        coverage.add(*span)
    edges = [(0, coverage.high_water), *coverage.above]
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(edges))


@given(st.lists(spans, max_size=30))
def test_it_survives_being_stored(arrivals: list[Span]) -> None:
    whole, stored = Coverage(), Coverage()
    for span in arrivals:
        stored = Coverage(stored.high_water, reversed(stored.above))
        assert stored.add(*span) == whole.add(*span)


@given(spans, spans)
def test_a_span_is_what_is_cut_off_and_what_is_left(span: Span, cut: Span) -> None:
    common = overlap(span, *cut)
    left = subtract(span, cut)
    assert sorted(numbers([*left, *([common] if common else [])])) == numbers([span])
