"""A serial CAN adapter of ours at a pty: it takes orders, and says what a test has it say."""

from __future__ import annotations

import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import can


class PtyAdapter:
    """path: where it is plugged in."""

    def __init__(self) -> None:
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        self.path = os.ttyname(self._near)

    def say(self, text: bytes) -> None:
        os.write(self._far, text)

    def pass_on(self, *messages: can.Message) -> None:
        self.say(b"".join(map(line_of, messages)))

    def told(self) -> bytes:
        """What it was told since the last look; waits for something."""
        return os.read(self._far, 65_536)

    def pull(self) -> None:
        """It is pulled out."""
        for each in (self._far, self._near):
            with suppress(OSError):
                os.close(each)


def line_of(message: can.Message) -> bytes:
    """A classic data frame as the protocol writes it."""
    kind, digits = ("T", 8) if message.is_extended_id else ("t", 3)
    text = f"{kind}{message.arbitration_id:0{digits}X}{message.dlc:X}{message.data.hex().upper()}\r"
    return text.encode()


@contextmanager
def plugged_in() -> Iterator[PtyAdapter]:
    adapter = PtyAdapter()
    try:
        yield adapter
    finally:
        adapter.pull()
