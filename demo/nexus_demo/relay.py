"""The shop's internet: a TCP relay between a box and the broker that can be cut and mended."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from nexus_demo.processes import free_port

_CHUNK = 64 * 1024
_SLOW_CHUNK = 2 * 1024


class Relay:
    """Carries connections from a port of its own to *target*, both on loopback, while it is open.

    Cut, it refuses new connections, and those that there were are gone without a goodbye. With
    *up*, so many bytes a second go from the box to the broker, and no more.
    """

    def __init__(self, target: int, *, up: int | None = None) -> None:
        self.port = free_port()
        self._target = target
        self._up = up
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def is_open(self) -> bool:
        return self._server is not None

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        await _abort(*self._ends)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._ends |= ends
        try:
            if self.is_open:  # it may have been cut while the other side answered
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, far_writer, self._up), name="relay:up")
                    group.create_task(_pump(far_reader, writer), name="relay:down")
        finally:
            await _abort(*ends)
            self._ends -= ends


async def _abort(*ends: asyncio.StreamWriter) -> None:
    for end in ends:
        end.transport.abort()
    for end in ends:
        with suppress(OSError):
            await end.wait_closed()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int | None = None
) -> None:
    """Copy until either side is gone; then the other is let go, too. rate: bytes a second."""
    try:
        while data := await reader.read(_SLOW_CHUNK if rate else _CHUNK):
            if rate:
                await asyncio.sleep(len(data) / rate)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the connection was cut or reset: that is what a relay is here for
    finally:
        writer.close()
