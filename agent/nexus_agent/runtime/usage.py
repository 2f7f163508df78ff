"""What a plugin's process takes of the box, and whether that is more than it may."""

from __future__ import annotations

import os
import resource
import time
from collections import deque
from pathlib import Path
from typing import Final

from nexus_agent.sections import Limits

CPU_WINDOW_S: Final = 30.0
MEGABYTE: Final = 1024 * 1024


class Usage:
    """Of the process *pid* with its temporary *folder*; `look` now and then."""

    def __init__(self, pid: int, folder: Path, limits: Limits) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._folder = folder
        self._limits = limits
        self._cpu: deque[tuple[float, float]] = deque()
        self.cpu_s = 0.0
        self.memory_bytes = 0

    def look(self) -> str | None:
        """What it takes too much of, in words; None where all is well. Blocks."""
        try:
            stat = self._stat.read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return None
        # proc_pid_stat(5): utime, stime and rss, counted from the field behind the name
        self.cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        self.memory_bytes = int(stat[21]) * resource.getpagesize()
        return self._excess_of_cpu(time.monotonic()) or self._excess_of_files()

    def _excess_of_cpu(self, now: float) -> str | None:
        self._cpu.append((now, self.cpu_s))
        while now - self._cpu[0][0] > CPU_WINDOW_S:
            since, before = self._cpu.popleft()
            share = (self.cpu_s - before) / (now - since) * 100
            if share > self._limits.cpu_percent:
                return (
                    f"it takes {share:.0f} % of a processor for {CPU_WINDOW_S:g} s; "
                    f"it may take {self._limits.cpu_percent:g} % (limits.cpu_percent)"
                )
        return None

    def _excess_of_files(self) -> str | None:
        used = sum(size_of(file) for file in self._folder.rglob("*"))
        if used <= self._limits.temporary_mb * MEGABYTE:
            return None
        return (
            f"its temporary files take {used / MEGABYTE:.0f} MB; "
            f"they may take {self._limits.temporary_mb:g} MB (limits.temporary_mb)"
        )


def size_of(file: Path) -> int:
    """Its bytes; 0 once it is gone."""
    try:
        return file.lstat().st_size
    except OSError:
        return 0
