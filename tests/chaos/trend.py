"""Whether a figure grows: a line laid through samples, for one life of a process and for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

Sample = tuple[float, float]
"""Seconds since the process began, and what was measured."""


@dataclass(frozen=True, slots=True)
class Trend:
    """slope: growth in an hour; error: its standard error; samples: how many it stands on."""

    slope: float
    error: float
    samples: int

    def exceeds(self, limit: float) -> bool:
        """Whether it grows by more than *limit* an hour, beyond what chance explains."""
        return self.slope - 2 * self.error > limit

    def __str__(self) -> str:
        return f"{self.slope:+.2f} +-{2 * self.error:.2f} an hour"


def trend(lives: Sequence[Sequence[Sample]]) -> Trend | None:
    """The one slope that fits all *lives* best, each with a level of its own (least squares).

    None where there are too few samples to tell how exact it is.
    """
    points = [point for life in lives for point in _around_their_mean(life)]
    spread = sum(x * x for x, _ in points)
    free = len(points) - len(lives) - 1
    if free < 1 or not spread:
        return None
    slope = sum(x * y for x, y in points) / spread
    error = math.sqrt(sum((y - slope * x) ** 2 for x, y in points) / free / spread)
    return Trend(slope * 3600, error * 3600, len(points))


def _around_their_mean(life: Sequence[Sample]) -> list[Sample]:
    if not life:
        return []
    x0, y0 = fmean(x for x, _ in life), fmean(y for _, y in life)
    return [(x - x0, y - y0) for x, y in life]
