"""What the bench asks of a contestant."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import psutil
from figure import peak_memory

from nexus_demo.processes import Process
from peers.course import HERE, Desk
from peers.producers.feed import LOAD, PORT


class Contestant(ABC):
    """One way from a box to a fleet. *folder* is where it keeps what it keeps."""

    name: ClassVar[str]
    form: ClassVar[str]
    """The far end that understands it."""
    what: ClassVar[str]
    """What it is, for people."""
    tls: ClassVar[bool] = True
    """Whether it speaks TLS to the remote broker."""
    process: Process
    """The one that is measured and killed."""

    def __init__(self, folder: Path, ca: Path, desk: Desk, load: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.ca = ca
        self.environ = {
            **os.environ,
            PORT: str(desk.port),
            LOAD: str(load),
            "PYTHONPATH": str(HERE),
        }

    async def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Install what is missing. Raises RuntimeError or OSError that says why it cannot be."""

    @abstractmethod
    async def start(self, port: int) -> float:
        """Start it with the remote broker at *port*; when (CLOCK_MONOTONIC) that was."""

    async def kill(self) -> None:
        """SIGKILL to the process that is measured."""
        await self.process.kill()

    async def stop(self) -> None:
        """Stop every process of it."""
        await self.process.stop()

    @abstractmethod
    def disk(self) -> int:
        """Bytes of the files in which it keeps what waits."""

    async def _run(self) -> float:
        started = time.monotonic()
        await self.process.start()
        return started

    def cpu(self) -> float:
        """CPU seconds of the measured process so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Its resident memory now, in MB."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def peak_memory(self) -> float:
        """The most resident memory it ever had, in MB."""
        return peak_memory(self.process.pid) / 1e6


def size_of(folder: Path, pattern: str) -> int:
    """Bytes of the files that match; one may vanish meanwhile."""
    total = 0
    for file in folder.glob(pattern):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total
