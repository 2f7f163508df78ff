"""A serial CAN adapter that is none: pseudo-terminals, and a relay of frames between them."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_FRAMES = (b"t", b"T")
"""How a frame begins in the adapters' protocol, with an identifier of 11 or 29 bits. What else a
host says sets the adapter up."""


class _End:
    """One end. What a host writes as a frame, the host at the other end reads as one."""

    def __init__(self) -> None:
        self.far, self.near = os.openpty()
        tty.setraw(self.near)
        os.set_blocking(self.far, False)
        self._rest = b""

    def frames(self) -> list[bytes]:
        *lines, self._rest = (self._rest + os.read(self.far, 4096)).split(b"\r")
        return [line + b"\r" for line in lines if line.startswith(_FRAMES)]

    def close(self) -> None:
        os.close(self.near)
        os.close(self.far)


@contextmanager
def slcan_line() -> Iterator[tuple[str, str]]:
    """The paths of both ends; after the block both adapters are gone."""
    loop, one, other = asyncio.get_running_loop(), _End(), _End()

    def relay(source: _End, target: _End) -> None:
        for frame in source.frames():
            os.write(target.far, frame)

    loop.add_reader(one.far, relay, one, other)
    loop.add_reader(other.far, relay, other, one)
    try:
        yield os.ttyname(one.near), os.ttyname(other.near)
    finally:
        for end in (one, other):
            loop.remove_reader(end.far)
            end.close()
