"""A broker that misbehaves: a gate before the real one that reads what passes through it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from nexus_demo.certs import Authority

_CONNECT: Final = 1
_PUBACK: Final = 4
"""Packet types of MQTT 5.0 section 2.1.2."""
SERVER_BUSY: Final = 0x89
"""A reason code of CONNACK (MQTT 5.0 section 3.2.2.2)."""

Manner = Literal["pass", "refuse", "hold", "drop"]


@dataclass(frozen=True, slots=True)
class _Held:
    packet: bytes
    writer: asyncio.StreamWriter


class Gate:
    """Ends TLS towards the box and speaks TLS with the broker at *target*.

    manner: `refuse` answers each CONNECT with a refusal; `hold` keeps PUBACKs back until it ends;
    `drop` throws them away.
    """

    def __init__(self, target: int, authority: Authority) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.target = target
        self._manner: Manner = "pass"
        self._held: list[_Held] = []
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        credentials = authority.server("gate")
        self._inner = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._inner.load_cert_chain(credentials.cert, credentials.key)
        self._outer = ssl.create_default_context(cafile=str(authority.ca))

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._socket, ssl=self._inner)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for end in self._ends:
            end.transport.abort()

    def follow(self, manner: Manner) -> None:
        self._manner = manner
        if manner != "hold":
            held, self._held = self._held, []
            for one in held:
                if not one.writer.is_closing():
                    one.writer.write(one.packet)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self.target, ssl=self._outer
            )
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._ends |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(reader, writer, far_writer), name="gate:up")
                group.create_task(self._down(far_reader, writer, far_writer), name="gate:down")
        finally:
            self._ends -= ends

    async def _up(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while True:
                packet = await _read_packet(reader)
                if packet[0] >> 4 == _CONNECT and self._manner == "refuse":
                    writer.write(bytes((0x20, 3, 0, SERVER_BUSY, 0)))
                    await writer.drain()
                    writer.close()
                    return
                far_writer.write(packet)
                await far_writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            far_writer.transport.abort()

    async def _down(
        self,
        far_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        try:
            while True:
                packet = await _read_packet(far_reader)
                if packet[0] >> 4 == _PUBACK and self._manner in {"hold", "drop"}:
                    if self._manner == "hold":
                        self._held.append(_Held(packet, writer))
                    continue
                writer.write(packet)
                await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            with suppress(OSError):
                writer.close()
            far_writer.transport.abort()


async def _read_packet(reader: asyncio.StreamReader) -> bytes:
    """One control packet (MQTT 5.0 section 2.1). Raises IncompleteReadError at the end."""
    packet = await reader.readexactly(2)
    while packet[-1] & 0x80 and len(packet) < 5:
        packet += await reader.readexactly(1)
    length = sum((byte & 0x7F) << 7 * n for n, byte in enumerate(packet[1:]))
    return packet + await reader.readexactly(length)
