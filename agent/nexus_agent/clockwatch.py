"""Tells the agent whether the clock is synchronised, as a process of its own.

The agent's sandbox takes every system call away that can set the clock, and asking is one of them.
This has no network, no state and no vehicle: `nexus-clock.service` runs it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from nexus_agent.clock import ask_kernel

PERIOD_S: Final = 5.0


def tell(file: Path) -> None:
    """Replace *file* by `1` or `0`, and when that was true: ns of CLOCK_BOOTTIME."""
    new = file.with_suffix(".new")
    # The time first: a step between the two must make the answer look older, not newer.
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    new.write_text(f"{int(ask_kernel())} {at}\n", "ascii")
    new.chmod(0o644)
    new.replace(file)


def main() -> None:
    """Tell until killed. The one argument is the file, on a disk of memory."""
    file = Path(sys.argv[1])
    while True:
        tell(file)
        time.sleep(PERIOD_S)  # noqa: TID251 - no loop here, and nothing else to do


if __name__ == "__main__":
    main()
