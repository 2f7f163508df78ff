"""A subscriber of single messages that is fast enough to be no contestant's limit.

MQTT 3.1.1 over TLS, QoS 1, on a bare transport: what comes in one read is parsed and acknowledged
together.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast

from nexus_agent.broker import BrokerAddress

_CONNECT: Final = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03far"
"""CONNECT (MQTT 3.1.1 section 3.1): clean session, no keep-alive, client `far`."""
_PUBLISH: Final = 3
_SUBACK: Final = 9
_QOS: Final = 0x06
Take = Callable[[list[tuple[bytes, bytes]]], None]


class Subscriber(asyncio.Protocol):
    """Hands (topic, payload) pairs to *take*, as many as came at once."""

    def __init__(self, address: BrokerAddress, take: Take) -> None:
        self._address = address
        self._take = take
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._subscribed = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, topics: tuple[str, ...], ready: Callable[[], None]) -> None:
        """Serve until cancelled. Raises ConnectionError when the broker is gone."""
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: self,
            self._address.host,
            self._address.port,
            ssl=self._address.tls_context(),
        )
        try:
            filters = b"".join(struct.pack(">H", len(t)) + t.encode() + b"\x01" for t in topics)
            transport.write(_CONNECT)
            transport.write(bytes([0x82, len(filters) + 2]) + b"\x00\x01" + filters)
            await self._subscribed.wait()
            ready()
            await self._ended
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's for TLS is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(ConnectionError(f"the broker is gone: {exc}"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at, acknowledged = 0, bytearray()
        messages: list[tuple[bytes, bytes]] = []
        while (body := _body(data, at)) is not None:
            start, end = body
            head = data[at]
            if head >> 4 == _PUBLISH:
                (size,) = struct.unpack_from(">H", data, start)
                topic = data[start + 2 : start + 2 + size]
                start += 2 + size
                if head & _QOS:
                    acknowledged += b"\x40\x02" + data[start : start + 2]
                    start += 2
                messages.append((topic, data[start:end]))
            elif head >> 4 == _SUBACK:
                self._subscribed.set()
            at = end
        self._rest = data[at:]
        if acknowledged and self._transport is not None:
            self._transport.write(bytes(acknowledged))
        if messages:
            self._take(messages)


def _body(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the packet at *at* has its body, or None if it is not all there (section 2.2.3)."""
    size, shift, start = 0, 0, at + 1
    while start < len(data):
        byte = data[start]
        size |= (byte & 0x7F) << shift
        shift += 7
        start += 1
        if byte < 0x80:
            end = start + size
            return (start, end) if end <= len(data) else None
    return None
