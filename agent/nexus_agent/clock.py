"""The box's clocks. Shops' PCs boot in 1970 and jump by years; order never depends on wall time."""

from __future__ import annotations

import ctypes
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nexus_agent.protocol import Stamp

BUILT: Final = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
"""No event of this version can be older, in ns: the lowest floor of the wall clock."""

_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised to a reliable source."""
_TIMEX_BYTES: Final = 256
"""Room for struct timex (208 bytes on 64-bit Linux); zeroed, its `modes` change nothing."""
_SYNC_CHECK_NS: Final = 10_000_000_000
_STEP_NS: Final = 500_000_000
"""ntpd and chronyd slew below their step threshold (128 ms in ntpd); more is a step."""


def _synchronised() -> bool:
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = int(ctypes.CDLL(None).adjtimex(buffer))
    return 0 <= state < _TIME_ERROR


class Clock:
    """Stamps events. *floor* (ns) is the newest synchronised time that this box has written down.

    A clock that was wrong by years must not lift the floor: only what a synchronised clock said
    counts, and a synchronised clock is believed whatever the floor says.
    """

    def __init__(self, floor: int = 0) -> None:
        self._floor = max(floor, BUILT)
        self.boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self._checked = -_SYNC_CHECK_NS
        self._synced = False
        self._offset = 0
        self._floor_since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    @property
    def floor(self) -> int:
        """The last synchronised time that this clock has told or was told of, ns."""
        return self._floor

    def raise_floor(self, floor: int) -> None:
        """Never go below *floor* from now on."""
        if floor > self._floor:
            self._floor = floor
            self._floor_since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def stamp(self) -> Stamp:
        """Now. Unsynchronised below the floor, it is the floor plus the time since it was that."""
        mono = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.time_ns()
        if (
            mono - self._checked >= _SYNC_CHECK_NS
            # Somebody has set the clock: what the kernel said before is no longer true.
            or abs(wall - mono - self._offset) > _STEP_NS
        ):
            self._synced, self._checked, self._offset = _synchronised(), mono, wall - mono
        if wall < BUILT or (wall < self._floor and not self._synced):
            return Stamp(self._floor + mono - self._floor_since, mono, self.boot, synced=False)
        if self._synced:
            self._floor, self._floor_since = wall, mono
        return Stamp(wall, mono, self.boot, self._synced)
