"""The way to an adapter: TCP, a serial device or BLE, as one protocol with a bounded buffer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from nexus_agent.plugin import FatalError, PluginError

MAX_BUFFER: Final = 64 * 1024
"""Most bytes kept unread; an answer of eight control units with 255 codes each is a third of it."""


BLE: Final = "ble://"


class LinkError(PluginError):
    """The adapter cannot be reached, or no longer."""


class Link(asyncio.Protocol):
    """An open way to an adapter.

    lost: it is closed, by either side. overrun: the buffer was full and lost its oldest bytes
    since the last `discard`. stirred: set when the link is lost, and by whoever wants to wake
    its user.
    """

    def __init__(self) -> None:
        self.lost = False
        self.overrun = False
        self.stirred = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # serialx's transports write, but do not all derive from WriteTransport.
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_BUFFER:
            self.overrun = True
            del self._buffer[:-MAX_BUFFER]
        self._news.set()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True
        self.stirred.set()
        self._news.set()

    async def write(self, data: bytes) -> None:
        """Send *data*; LinkError if the link is gone."""
        if self.lost or self._transport is None or self._transport.is_closing():
            raise LinkError("the connection is closed")
        try:
            self._transport.write(data)
        except OSError as error:
            raise LinkError(_reason(error)) from None

    def discard(self) -> None:
        """Forget what came unread."""
        self._buffer.clear()
        self.overrun = False

    def peek(self) -> bytes:
        """What came and is unread."""
        return bytes(self._buffer)

    async def read_until(self, mark: bytes, within_s: float) -> bytes | None:
        """What came before *mark*, which is taken too; None where it is not there in time.

        What came so far then stays unread. Raises LinkError when the link is gone.
        """
        try:
            async with asyncio.timeout(within_s):
                while (at := self._buffer.find(mark)) < 0:
                    if self.lost:
                        raise LinkError("the connection was closed by the adapter")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        text = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return text

    def close(self) -> None:
        """Give the port back at once; nothing that is still unsent matters."""
        if self._transport is not None:
            self._transport.abort()
        self.lost = True
        self.stirred.set()
        self._news.set()


@asynccontextmanager
async def opened(port: str, *, baudrate: int, within_s: float) -> AsyncIterator[Link]:
    """An open way to the adapter at *port* until the block ends.

    port: `socket://host:port`, a device path, or `ble://` and an address or a name. Raises
    LinkError in plain words where it cannot be opened, FatalError where an extra is missing.
    """
    if port.startswith(BLE):
        from nexus_plugins.obd import ble

        async with ble.opened(port.removeprefix(BLE), within_s=within_s) as link:
            yield link
        return
    link = await connect(port, baudrate=baudrate, within_s=within_s)
    try:
        yield link
    finally:
        link.close()


async def connect(port: str, *, baudrate: int, within_s: float) -> Link:
    """Open *port*, `socket://host:port` or a device path. Raises LinkError in plain words."""
    try:
        async with asyncio.timeout(within_s):
            if port.startswith("/"):
                return await _connect_serial(port, baudrate)
            return await _connect_tcp(port)
    except TimeoutError:
        raise LinkError(f"it does not open within {within_s:g} s") from None
    except OSError as error:
        raise LinkError(_reason(error)) from None


async def _connect_tcp(port: str) -> Link:
    parts = urlsplit(port)
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(
        Link, host=str(parts.hostname), port=int(parts.port or 0)
    )
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


async def _connect_serial(path: str, baudrate: int) -> Link:
    try:
        import serialx
    except ImportError:
        raise FatalError(
            "serial adapters need the extra 'obd': install nexus-core-agent[obd]"
        ) from None
    # At debug level it logs every byte, and a VIN is among them.
    logging.getLogger("serialx").setLevel(logging.INFO)
    link = Link()
    loop = asyncio.get_running_loop()
    try:
        await serialx.create_serial_connection(loop, lambda: link, path, baudrate=baudrate)
    except serialx.SerialException as error:
        raise LinkError(str(error)) from None
    return link


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied: the agent's user must be in the device's group, often 'dialout'"
    return os.strerror(error.errno) if error.errno else str(error)
