"""Ranges that the console lacks although the box has released them: to be sent once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nexus_agent.protocol import Stream

RANGES: Final = 1024
"""Kept at most; the console asks again for what it still lacks."""

Span = tuple[int, int]
"""First and last sequence, both included."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One range of one stream and epoch."""

    stream: Stream
    epoch: int
    first: int
    last: int


class Wanted:
    """Merges what acknowledgements ask for, and gives it out from the left.

    What was answered is not taken in again for *rest_s* seconds: until the console has it, its
    acknowledgements repeat the wish.
    """

    def __init__(self, rest_s: float) -> None:
        self._rest_s = rest_s
        self._spans: dict[tuple[Stream, int], list[Span]] = {}
        self._answered: list[tuple[float, Wish]] = []

    def __len__(self) -> int:
        return sum(len(spans) for spans in self._spans.values())

    def begin(self) -> None:
        """A new session: what was answered in the last one may never have arrived."""
        self._answered.clear()

    def add(self, stream: Stream, epoch: int, spans: Iterable[Span], now: float) -> None:
        """Want *spans*, less what was answered lately."""
        self._answered = [item for item in self._answered if item[0] + self._rest_s > now]
        fresh = list(spans)
        for _, wish in self._answered:
            if (wish.stream, wish.epoch) == (stream, epoch):
                fresh = _without(fresh, (wish.first, wish.last))
        if fresh:
            key = stream, epoch
            merged = _merged([*self._spans.get(key, []), *fresh])
            room = RANGES - len(self) + len(self._spans.get(key, []))
            self._spans[key] = merged[: max(room, 1)]

    def first(self, may_go: Callable[[Stream], bool]) -> Wish | None:
        """The most urgent wish, of the oldest epoch, among the streams that may go now."""
        for stream, epoch in sorted(self._spans, key=lambda key: (list(Stream).index(key[0]), key)):
            if may_go(stream):
                return Wish(stream, epoch, *self._spans[stream, epoch][0])
        return None

    def answer(self, wish: Wish, now: float) -> None:
        """*wish* is dealt with: sent, or declared gone."""
        key = wish.stream, wish.epoch
        left = _without(self._spans.get(key, []), (wish.first, wish.last))
        if left:
            self._spans[key] = left
        else:
            self._spans.pop(key, None)
        last = self._answered[-1][1] if self._answered else None
        if last and (last.stream, last.epoch, last.last + 1) == (*key, wish.first):
            self._answered[-1] = now, Wish(*key, last.first, wish.last)
        else:
            self._answered = [*self._answered[1 - RANGES :], (now, wish)]


def _merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def _without(spans: Iterable[Span], hole: Span) -> list[Span]:
    """*spans* less *hole*."""
    found: list[Span] = []
    for first, last in spans:
        found += [
            part
            for part in ((first, min(last, hole[0] - 1)), (max(first, hole[1] + 1), last))
            if part[0] <= part[1]
        ]
    return found
