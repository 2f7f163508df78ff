"""A serial port for a machine: a pseudo terminal whose far end is the emulated adapter."""

from __future__ import annotations

import asyncio
import os
import shutil
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

DIALOUT: Final = 20
"""The group that may use serial ports; Debian has fixed its number."""


class _Adapter(asyncio.Protocol):
    """What it answers comes out of the port."""

    def __init__(self, far: int) -> None:
        self._far = far

    def data_received(self, data: bytes) -> None:
        os.write(self._far, data)


@asynccontextmanager
async def serial_port(adapter: int) -> AsyncIterator[Path]:
    """The path, out here, of a serial port to the adapter at this TCP port."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    path = Path(os.ttyname(near))
    shutil.chown(path, group=DIALOUT)
    path.chmod(0o660)
    loop = asyncio.get_running_loop()
    way, _ = await loop.create_connection(lambda: _Adapter(far), "127.0.0.1", adapter)
    loop.add_reader(far, lambda: way.write(os.read(far, 1000)))
    try:
        yield path
    finally:
        loop.remove_reader(far)
        way.abort()
        os.close(near)
        os.close(far)
