"""The soak's regression: what grows is seen, what only differs from life to life is not."""

from __future__ import annotations

import pytest
from tests.chaos.trend import Sample, Trend, trend


def life(level: float, slope: float, count: int = 30) -> list[Sample]:
    """Samples every 10 s that grow by *slope* an hour, with a little to and fro."""
    return [(10.0 * n, level + slope * n / 360 + 0.1 * (n % 2)) for n in range(count)]


def fitted(*lives: list[Sample]) -> Trend:
    found = trend(lives)
    assert found is not None
    return found


def test_growth_is_found_across_lives_of_different_levels() -> None:
    found = fitted(life(50, 12), life(80, 12), life(20, 12))
    assert found.slope == pytest.approx(12, abs=1)
    assert found.exceeds(6)


def test_lives_that_do_not_grow_are_flat_whatever_their_levels() -> None:
    found = fitted(life(50, 0), life(80, 0), life(110, 0))
    assert found.slope == pytest.approx(0, abs=1)
    assert not found.exceeds(0)


def test_growth_that_chance_explains_exceeds_nothing() -> None:
    assert not Trend(slope=10, error=3, samples=30).exceeds(5)


@pytest.mark.parametrize("lives", [[], [[]], [[(0.0, 1.0)]], [[(0.0, 1.0), (0.0, 2.0)]]])
def test_too_few_samples_tell_nothing(lives: list[list[Sample]]) -> None:
    assert trend(lives) is None
