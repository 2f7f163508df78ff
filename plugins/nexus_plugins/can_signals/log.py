"""A file of frames that were recorded on a CAN channel. Everything here blocks."""

from __future__ import annotations

import importlib
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import can
from can.io.blf import BLFParseError

from nexus_agent.plugin import FatalError

_TEXTS: Final = {".asc": can.ASCReader, ".log": can.CanutilsLogReader, ".trc": can.TRCReader}
_LONGEST_GAP_S: Final = 60.0
"""A longer silence in a log, or a jump of its clock, is cut to this."""
_MOST: Final = 2000
"""Frames taken at one go, however close their times are."""
_DAMAGE: Final = (
    *(OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, EOFError),
    *(struct.error, zlib.error, BLFParseError, can.CanError, AssertionError, RuntimeError),
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
        self._damage: tuple[type[Exception], ...] = _DAMAGE
        if _is_mdf(path):
            self._damage = (*_DAMAGE, *_mdf_errors())
        self._opened = ExitStack()
        self._closed = False
        self._messages: Iterator[can.Message] = iter(())
        self._next: can.Message | None = None
        self._at: float | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Raises DamagedError, and FatalError where the box lacks what reads such a log."""
        with self._lock:
            if self._closed:
                return
            try:
                self._messages = self._begun()
            except NotImplementedError as error:
                raise FatalError(
                    "Logs in MDF 4 cannot be read here: install the package's extra `mf4`."
                ) from error
            except self._damage as error:
                raise DamagedError(self._said(error)) from error

    def _begun(self) -> Iterator[can.Message]:
        if _is_mdf(self._path):  # asammdf has the file to itself
            reader = can.MF4Reader(self._path)
            self._opened.callback(reader.stop)
            return iter(reader)
        suffix = self._path.suffix.lower()
        if suffix == ".blf":
            return iter(self._blf(self._opened.enter_context(self._path.open("rb"))))
        # Vector's and PEAK's tools write what Windows has; nothing that counts is beyond ASCII.
        text = self._path.open("r", encoding="ascii", errors="replace")
        return iter(_TEXTS[suffix](self._opened.enter_context(text)))

    def _blf(self, file: BinaryIO) -> Iterator[can.Message]:
        """python-can takes one that is cut short for a whole one."""
        reader = can.BLFReader(file)
        yield from reader
        size = self._path.stat().st_size
        if size < reader.file_size:
            raise DamagedError(f"{size} of {reader.file_size} bytes are there")

    def close(self) -> None:
        """Also one that was not opened, and one whose `take` nobody waits for any more."""
        with self._lock:
            self._closed = True
            self._messages, self._next = iter(()), None
            self._opened.close()

    def take(self, until: float, sink: Callable[[can.Message], None]) -> bool:
        """Hand on what was recorded up to *until* seconds after the begin; whether there is more.

        Raises DamagedError.
        """
        with self._lock:
            for _ in range(_MOST):
                message = self._following()
                if message is None:
                    return False
                if self.elapsed > until:
                    return True
                self._next = None
                self._hand_on(message, sink)
            return True

    def _following(self) -> can.Message | None:
        """The message whose turn it is; `elapsed` is its time. It stays until `_next` is None."""
        if self._next is not None:
            return self._next
        try:
            self._next = message = next(self._messages, None)
        except self._damage as error:
            raise DamagedError(self._said(error)) from error
        if message is None:
            if not self.frames and not self.errors:
                raise DamagedError("there is no frame in it")
            return None
        if self._at is not None:
            self.elapsed += min(max(message.timestamp - self._at, 0.0), _LONGEST_GAP_S)
        self._at = message.timestamp
        return message

    def _hand_on(self, message: can.Message, sink: Callable[[can.Message], None]) -> None:
        if message.is_error_frame:
            self.errors += 1
        elif not message.is_remote_frame:
            self.frames += 1
            sink(message)

    def _said(self, error: Exception) -> str:
        """In words without the file's name: people name logs after a VIN."""
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return f"{error}".replace(str(self._path), "it") or type(error).__name__


def _is_mdf(path: Path) -> bool:
    return path.suffix.lower() == ".mf4"


def _mdf_errors() -> tuple[type[Exception], ...]:
    """What asammdf raises of its own; nothing where it is not installed."""
    try:
        return (importlib.import_module("asammdf.blocks.utils").MdfException,)
    except ImportError:
        return ()
