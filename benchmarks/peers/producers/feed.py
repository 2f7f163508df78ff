"""What every producer shares: orders from the bench, and receipts back. Standard library only.

The bench listens; a producer connects. An order is one line, `FIRST COUNT RATE`: hand over the
events FIRST to FIRST+COUNT-1, RATE a second, or as fast as they go where RATE is 0. The producer
answers `start SECONDS` (CLOCK_MONOTONIC) when it begins, and `FIRST LAST` for each range that it
was told is accepted, as soon as it was told: a killed producer's receipts are in the socket by
then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PORT: Final = "BENCH_PORT"
LOAD: Final = "BENCH_LOAD"
TOGETHER: Final = "BENCH_TOGETHER"
BATCH: Final = 500
"""Events handed over at once where there is no rate; with one they come one by one."""


@dataclass(frozen=True, slots=True)
class Order:
    """Events first to first+count-1, *rate* a second (0: no limit)."""

    first: int
    count: int
    rate: int

    @classmethod
    def parse(cls, line: bytes) -> Order:
        first, count, rate = map(int, line.split())
        return cls(first, count, rate)

    def batches(self) -> Iterator[tuple[float, int, int]]:
        """(seconds after the start when it is due, first event, number of events)."""
        size = 1 if self.rate else BATCH
        for done in range(0, self.count, size):
            due = done / self.rate if self.rate else 0.0
            yield due, self.first + done, min(size, self.count - done)


class Load:
    """The events: readings that the bench wrote into a file, over and over, with a number each."""

    def __init__(self) -> None:
        self._readings: list[tuple[str, dict[str, Any]]] = [
            (kind, data) for kind, data in json.loads(Path(os.environ[LOAD]).read_bytes())
        ]

    def events(self, first: int, count: int) -> list[tuple[str, dict[str, Any]]]:
        readings, size = self._readings, len(self._readings)
        return [
            (readings[n % size][0], {"n": n, **readings[n % size][1]})
            for n in range(first, first + count)
        ]


def port() -> int:
    """Where the bench listens, on loopback."""
    return int(os.environ[PORT])
