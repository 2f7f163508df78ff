"""Which sequence numbers of one stream have arrived. Pure: no I/O, no clock.

A *span* is a pair (first, last) of sequence numbers, both included.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import Final, TypeAlias

Span: TypeAlias = tuple[int, int]

_FIRST: Final = itemgetter(0)
_LAST: Final = itemgetter(1)


class Coverage:
    """Everything up to `high_water`, and `above` it disjoint spans that came out of order.

    Sequences start at 1, so a high-water mark of 0 means that nothing has come. `above` is sorted,
    and a gap of at least one number lies before each of its spans.
    """

    def __init__(self, high_water: int = 0, above: Iterable[Span] = ()) -> None:
        self.high_water = high_water
        self.above: list[Span] = sorted(above)

    @property
    def highest(self) -> int:
        """The highest number that has come."""
        return self.above[-1][1] if self.above else self.high_water

    def missing(self, first: int, last: int) -> list[Span]:
        """The parts of first to last that have not come yet, in order."""
        found: list[Span] = []
        start = max(first, self.high_water + 1)
        for span in self.above[bisect_left(self.above, start, key=_LAST) :]:
            if span[0] > last:
                break
            if start < span[0]:
                found.append((start, span[0] - 1))
            start = span[1] + 1
        if start <= last:
            found.append((start, last))
        return found

    def add(self, first: int, last: int) -> list[Span]:
        """Take first to last in and return the parts that are new, in order."""
        new = self.missing(first, last)
        if not new:
            return []
        first = max(first, self.high_water + 1)
        # Spans that overlap or touch the new one are merged with it.
        low = bisect_left(self.above, first - 1, key=_LAST)
        high = bisect_right(self.above, last + 1, key=_FIRST)
        if low < high:
            first = min(first, self.above[low][0])
            last = max(last, self.above[high - 1][1])
        self.above[low:high] = [(first, last)]
        if self.above[0][0] == self.high_water + 1:
            self.high_water = self.above.pop(0)[1]
        return new

    def present(self, first: int) -> list[Span]:
        """What of *first* and above has come, in order."""
        below = [(first, self.high_water)] if first <= self.high_water else []
        return below + [(max(span[0], first), span[1]) for span in self.above if span[1] >= first]

    def gaps(self, until: int = 0) -> list[Span]:
        """What is missing below the highest number that has come, or below *until* if higher."""
        return self.missing(1, max(until, self.highest))


class Doubts:
    """Disjoint spans of what has come and may not be what today's box has under these numbers."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self.spans: list[Span] = sorted(spans)

    @property
    def first(self) -> int | None:
        """The lowest number in doubt."""
        return self.spans[0][0] if self.spans else None

    def add(self, spans: Iterable[Span]) -> None:
        """Doubt *spans*, which are not in doubt yet."""
        self.spans = sorted([*self.spans, *spans])

    def settle(self, first: int, last: int) -> None:
        """First to last are beyond doubt."""
        if self.spans:
            self.spans = [part for span in self.spans for part in subtract(span, (first, last))]

    def up_to(self, last: int) -> list[Span]:
        """What of 1 to *last* is in doubt, in order."""
        return [(first, min(end, last)) for first, end in self.spans if first <= last]


def overlap(span: Span, first: int, last: int) -> Span | None:
    """The common part of *span* and first to last, or None."""
    common = (max(span[0], first), min(span[1], last))
    return common if common[0] <= common[1] else None


def subtract(span: Span, cut: Span) -> list[Span]:
    """What is left of *span* without *cut*: none, one or two spans, in order."""
    left = (span[0], min(span[1], cut[0] - 1))
    right = (max(span[0], cut[1] + 1), span[1])
    return [part for part in (left, right) if part[0] <= part[1]]
