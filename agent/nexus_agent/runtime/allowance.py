"""How many events a plugin may emit: a flood of one must not drown what its neighbours say."""

from __future__ import annotations

import time
from typing import Final

BURST_S: Final = 20.0
"""So many seconds' worth may come at once."""


class Allowance:
    """A token bucket of *per_second* events a second."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._left = per_second * BURST_S
        self._at = time.monotonic()

    def take(self, count: int) -> float:
        """Take *count*, and return the seconds to wait until they were due: 0 within the rate."""
        self._fill()
        self._left -= count
        return max(0.0, -self._left / self._per_second)

    def has(self, count: int) -> bool:
        """Whether *count* could be taken without waiting, or the bucket is full."""
        self._fill()
        return self._left >= min(count, self._per_second * BURST_S)

    def _fill(self) -> None:
        now = time.monotonic()
        most = self._per_second * BURST_S
        self._left = min(most, self._left + (now - self._at) * self._per_second)
        self._at = now
