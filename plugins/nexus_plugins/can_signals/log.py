"""A file of frames that were recorded on a CAN channel. Everything here blocks."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import can
from can.io.blf import BLFParseError

from nexus_agent.plugin import FatalError

_LONGEST_GAP_S: Final = 60.0
"""A longer silence in a log, or a jump of its clock, is cut to this."""
_MOST: Final = 2000
"""Frames taken at one go, however close their times are."""
_DAMAGE: Final = (
    *(OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, EOFError),
    *(struct.error, zlib.error, BLFParseError, can.CanError, AssertionError),
)
"""What python-can's readers raise, each where it comes upon the damage."""


class DamagedError(Exception):
    """The log cannot be read, or not to its end; the message says why."""


class Log:
    """One pass through a log file. Its methods are for worker threads, one after the other."""

    def __init__(self, path: Path) -> None:
        self.frames = 0
        self.errors = 0
        self.elapsed = 0.0
        """Seconds of the log that were taken, long silences shortened."""
        self._path = path
        self._reader: can.io.generic.MessageReader | None = None
        self._messages: Iterator[can.Message] = iter(())
        self._next: can.Message | None = None
        self._at: float | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Raises DamagedError, and FatalError where the box lacks what reads such a log."""
        try:
            self._reader = can.LogReader(self._path)
            self._messages = iter(self._reader)
        except NotImplementedError as error:
            raise FatalError(
                f"{self._path.name} cannot be read here: install the extra `mf4` of the package."
            ) from error
        except _DAMAGE as error:
            raise DamagedError(_said(error)) from error

    def close(self) -> None:
        """Also one that was not opened, and one whose `take` nobody waits for any more."""
        with self._lock:
            self._messages, self._next = iter(()), None
            if self._reader is not None:
                self._reader.stop()

    def take(self, until: float, sink: Callable[[can.Message], None]) -> bool:
        """Hand on what was recorded up to *until* seconds after the begin; whether there is more.

        Raises DamagedError.
        """
        with self._lock:
            try:
                for _ in range(_MOST):
                    message = self._following()
                    if message is None:
                        self._check_end()
                        return False
                    if self.elapsed > until:
                        return True
                    self._next = None
                    self._hand_on(message, sink)
            except _DAMAGE as error:
                raise DamagedError(_said(error)) from error
        return True

    def _following(self) -> can.Message | None:
        """The message whose turn it is; `elapsed` is its time. It stays until `_next` is None."""
        if self._next is None:
            self._next = message = next(self._messages, None)
            if message is not None:
                if self._at is not None:
                    self.elapsed += min(max(message.timestamp - self._at, 0.0), _LONGEST_GAP_S)
                self._at = message.timestamp
        return self._next

    def _hand_on(self, message: can.Message, sink: Callable[[can.Message], None]) -> None:
        if message.is_error_frame:
            self.errors += 1
        elif not message.is_remote_frame:
            self.frames += 1
            sink(message)

    def _check_end(self) -> None:
        """python-can takes a BLF file that is cut short, or has nothing in it, for a whole one."""
        if isinstance(self._reader, can.BLFReader):
            size = self._path.stat().st_size
            if size < self._reader.file_size:
                raise DamagedError(f"{size} of {self._reader.file_size} bytes are there")
        if not self.frames and not self.errors:
            raise DamagedError("there is no frame in it")


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{error}" or type(error).__name__
