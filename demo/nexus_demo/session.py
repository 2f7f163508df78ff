"""One run of the demo or the smoke: its options, its folder, its signals, its clock."""

from __future__ import annotations

import argparse
import asyncio
import math
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Clock:
    """Prints lines with the seconds since the start before them."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._start, 1)

    def say(self, text: str) -> None:
        print(f"[{self.seconds:6.1f} s] {text}", flush=True)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that both commands take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--broker",
        choices=["auto", "mosquitto", "embedded"],
        default="auto",
        help="auto takes the machine's mosquitto if there is one (default)",
    )
    options.add_argument(
        "--folder",
        type=Path,
        help="an empty folder for files and logs, kept afterwards (default: a temporary one)",
    )
    return options


def seconds(text: str) -> float:
    """An option's value: seconds, at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def make_folder(wish: Path | None) -> Path:
    """The run's folder. Its path is short, for Unix sockets take 107 bytes of path (unix(7))."""
    if wish is None:
        return Path(tempfile.mkdtemp(prefix="nexus-"))
    wish.mkdir(parents=True, exist_ok=True)
    return wish.resolve()


def remove_folder(folder: Path, wish: Path | None) -> None:
    """Remove a temporary folder; one that somebody asked for stays."""
    if wish is None:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def stops_on_sigterm() -> AsyncIterator[None]:
    """Let SIGTERM do what Ctrl-C does: cancel the block, whose clean-up then runs."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
