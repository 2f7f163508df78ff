"""How long to wait before connecting again."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 1.0
CAP_S: Final = 128.0


def full_jitter(attempt: int) -> float:
    """Seconds before attempt number *attempt* (1 is the first retry): anything up to the ceiling.

    Full jitter spreads a fleet that lost its broker at one moment over the whole ceiling.
    """
    return random.uniform(0, min(CAP_S, FIRST_S * 2.0 ** min(attempt, 16)))  # noqa: S311
