"""The box's clocks. Shops' PCs boot in 1970 and jump by years; order never depends on wall time."""

from __future__ import annotations

import ctypes
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nexus_agent.protocol import Stamp

BUILT: Final = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
"""No event of this version can be older, in ns: the lowest floor of the wall clock."""

STATE: Final = "HOST_CLOCK"
"""The environment variable that names the file of `nexus_agent.clockwatch`, for an agent that may
not ask the kernel: systemd's ProtectClock takes the question away together with the answer."""
BOOT_ID: Final = "HOST_BOOT_ID"
"""The one that is the boot id, for an agent that sees no more of /proc than processes."""

_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised to a reliable source."""
_TIMEX_BYTES: Final = 256
"""Room for struct timex (208 bytes on 64-bit Linux); zeroed, its `modes` change nothing."""
_SYNC_CHECK_NS: Final = 10_000_000_000
_FRESH_NS: Final = 15_000_000_000
"""How old what the file says may be: three of its writer's periods."""
_STEP_NS: Final = 500_000_000
"""ntpd and chronyd slew below their step threshold (128 ms in ntpd); more is a step."""


def ask_kernel() -> bool:
    """Whether the kernel says that something keeps the clock right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = int(ctypes.CDLL(None).adjtimex(buffer))
    return 0 <= state < _TIME_ERROR


def _synchronised(since: int) -> bool:
    """What the kernel says, or said to the watch at *since* (ns of CLOCK_BOOTTIME) or later."""
    file = os.environ.get(STATE)
    if file is None:
        return ask_kernel()
    try:
        state, at = Path(file).read_text("ascii").split()
        return state == "1" and int(at) >= since
    except (OSError, ValueError):
        return (
            False  # The watch is not there: nobody knows, and then nothing expires by this clock.
        )


def _boot_id() -> str:
    told = os.environ.get(BOOT_ID) or Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    # systemd's %b has no dashes, the kernel's has.
    return str(uuid.UUID(told.strip()))


class Clock:
    """Stamps events. *floor* (ns) is the newest synchronised time that this box has written down.

    A clock that was wrong by years must not lift the floor: only what a synchronised clock said
    counts, and a synchronised clock is believed whatever the floor says.
    """

    def __init__(self, floor: int = 0) -> None:
        self._floor = max(floor, BUILT)
        self.boot = _boot_id()
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
        # Somebody has set the clock: what the kernel said before is no longer true.
        stepped = abs(wall - mono - self._offset) > _STEP_NS
        if stepped or mono - self._checked >= _SYNC_CHECK_NS:
            since = mono if stepped and self._offset else mono - _FRESH_NS
            self._synced, self._checked, self._offset = _synchronised(since), mono, wall - mono
        if wall < BUILT or (wall < self._floor and not self._synced):
            return Stamp(self._floor + mono - self._floor_since, mono, self.boot, synced=False)
        if self._synced:
            self._floor, self._floor_since = wall, mono
        return Stamp(wall, mono, self.boot, self._synced)
