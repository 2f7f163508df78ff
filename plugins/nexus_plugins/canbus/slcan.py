"""Serial CAN adapters (the protocol of the LAWICEL CAN232), read fast enough for a full bus."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from can.exceptions import error_check
from can.interfaces.slcan import slcanBus

_LONGEST: Final = 256
"""Bytes; the longest line there is, a CAN FD frame with 64 bytes of data, has 139."""
_WAIT_S: Final = 0.05


class SlcanBus(slcanBus):
    """python-can's own, but for one thing: it takes all bytes that are there at once.

    One byte a call, as python-can does it, took 400 µs a frame here: a whole core for 2,500
    frames/s. A line that is no frame raises ValueError or IndexError; the next one is read as ever.
    """

    def __init__(self, channel: str, **options: Any) -> None:
        self._lines: deque[str] = deque()
        super().__init__(channel, timeout=_WAIT_S, **options)

    def _read(self, timeout: float | None) -> str | None:  # noqa: ARG002 - that of the port serves
        """One line without its end, or None where none is complete yet."""
        if not self._lines:
            with error_check("Could not read from serial device"):
                port = self.serialPortOrig
                self._buffer += port.read(max(1, port.in_waiting))
            self._split()
        return self._lines.popleft() if self._lines else None

    def _split(self) -> None:
        *lines, rest = self._buffer.replace(self._ERROR, self._OK).split(self._OK)
        self._lines.extend(line.decode("ascii", errors="replace") for line in lines)
        self._buffer = rest
        if len(rest) > _LONGEST:
            self._buffer = bytearray()
            raise ValueError("a line has no end")
