"""What the process costs and how promptly its event loop turns."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_S: Final = 0.5
WINDOW_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Of this process: CPU seconds since its start, memory in RAM, open descriptors."""

    cpu_s: float
    resident_bytes: int
    descriptors: int
    most_descriptors: int


def costs() -> Costs:
    """What the process costs now; proc(5) has it."""
    process = Path("/proc/self")
    pages = int((process / "statm").read_text("ascii").split()[1])
    return Costs(
        cpu_s=time.process_time(),
        resident_bytes=pages * resource.getpagesize(),
        # One of them is the folder that is read here.
        descriptors=sum(1 for _ in (process / "fd").iterdir()) - 1,
        most_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


class Lag:
    """How much later than it asked a task is woken: what everything else on the loop costs it."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=int(WINDOW_S / TICK_S))
        self.total_s = 0.0
        self.count = 0

    async def run(self, tick: Callable[[], None]) -> None:
        """Measure every half second until cancelled, and call *tick* each time."""
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.add(max(time.monotonic() - due, 0.0))
            tick()

    def add(self, seconds: float) -> None:
        """Note one measurement."""
        self._recent.append(seconds)
        self.total_s += seconds
        self.count += 1

    def quantile(self, share: float) -> float:
        """What *share* of the last minute's measurements did not pass; 0 before the first."""
        ordered = sorted(self._recent)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
