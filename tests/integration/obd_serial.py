"""An emulated adapter on a serial line: a pseudo-terminal with the emulator's socket behind it."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit


@asynccontextmanager
async def serial_line(port: str) -> AsyncIterator[str]:
    """The path of a pseudo-terminal at whose far end is the adapter at *port*, a `socket://`."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    parts, loop = urlsplit(port), asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)

    async def bring_back() -> None:
        while data := await reader.read(1000):
            os.write(far, data)

    loop.add_reader(far, lambda: writer.write(os.read(far, 1000)))
    try:
        with closing(writer):
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(bring_back(), name="pump")
                yield os.ttyname(near)
                pump.cancel()
    finally:
        loop.remove_reader(far)
        os.close(near)
        os.close(far)
