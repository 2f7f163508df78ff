"""Whether the machine's clock is synchronised, asked of the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from nexus_agent.plugin import Quality

TIMESYNC_MARKER: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd.service(8): touched whenever it has set the clock since the start."""

STATE: Final = "HOST_CLOCK"
"""The environment variable that names the file of the agent's clock watch, where a sandbox refuses
the question itself: `1` or `0`, and when that was asked."""

_STA_UNSYNC: Final = 0x0040
"""adjtimex(2): the clock is not synchronised."""


class _Timex(ctypes.Structure):
    """The head of struct timex of adjtimex(2), and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


def synchronised(marker: Path = TIMESYNC_MARKER) -> bool | Quality:
    """Whether the clock is synchronised, or why that cannot be said: absent or refused."""
    told = os.environ.get(STATE)
    known = _kernel() if told is None else Path(told).read_text("ascii").startswith("1")
    return True if known is not True and marker.exists() else known


def _kernel() -> bool | Quality:
    state = _Timex()  # modes 0: only read
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return Quality.ABSENT
    if libc.adjtimex(ctypes.byref(state)) < 0:
        return Quality.REFUSED if ctypes.get_errno() == errno.EPERM else Quality.ABSENT
    return not state.status & _STA_UNSYNC
