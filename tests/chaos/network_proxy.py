"""A line that does what bad lines do, between two programs on this machine."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 64 * 1024
_PIECE: Final = 64
"""Bytes that a slow line carries at a time."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How the line is: `pass`, `swallow`, `reset`, `drip`, `stall`, `delay`, `cut` or `refuse`.

    amount: of drip, bytes a second; of stall, the bytes down after which a new
    connection says nothing more; of delay, seconds at most; of cut, the bytes after which each
    connection is torn, drawn anew up to there.
    """

    kind: str = "pass"
    amount: float = 0.0


PASS: Final = Rule()
_RESETS: Final = frozenset({"reset", "stall", "refuse"})


class _Carried:
    """One connection with its two ends. dead: its bytes go nowhere, and nobody is told."""

    def __init__(self, *ends: asyncio.StreamWriter, left: int) -> None:
        self.ends = ends
        self.dead = False
        self.down = 0
        self.left = left

    def reset(self) -> None:
        """RST to both sides."""
        for end in self.ends:
            sock = end.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


class Proxy:
    """Carries connections from a port of its own to *target*, both on loopback, as its rule says.

    A connection that has lost a byte stays dead when the rule ends: only who gives it up goes on.
    """

    def __init__(self, target: int, chance: random.Random) -> None:
        # Bound and not listening it refuses, and nobody else gets the port while nobody listens.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self.target = target
        self._chance = chance
        self._rule = PASS
        self._server: asyncio.Server | None = None
        self._carried: set[_Carried] = set()

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, reuse_port=True
            )

    def close(self) -> None:
        self._refuse()
        self._reserved.close()

    def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset()

    def reset(self) -> None:
        for carried in list(self._carried):
            carried.reset()

    async def follow(self, rule: Rule) -> None:
        """From now on the line is as *rule* says."""
        self._rule = rule
        if rule.kind == "refuse":
            self._refuse()
            return
        await self.open()
        if rule.kind in _RESETS:
            self.reset()
        for carried in self._carried:
            carried.left = self._draw()
            carried.dead |= rule.kind == "swallow"

    def _draw(self) -> int:
        return self._chance.randrange(1, int(self._rule.amount) + 2)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        carried = _Carried(writer, far_writer, left=self._draw())
        carried.dead = self._rule.kind == "swallow"
        self._carried.add(carried)
        try:
            if self._server is None:  # it was closed while the other side answered
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(carried, reader, far_writer), name="proxy:up")
                group.create_task(self._pump(carried, far_reader, writer), name="proxy:down")
        finally:
            carried.reset()
            self._carried.discard(carried)

    async def _pump(
        self, carried: _Carried, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if not carried.dead:
                    await self._carry(carried, data, writer)
        except OSError:
            pass  # it was torn or given up: that is what this is here for
        finally:
            # Behind a dead line the other side hears of no end.
            if not carried.dead:
                carried.reset()

    async def _carry(self, carried: _Carried, data: bytes, writer: asyncio.StreamWriter) -> None:
        rule = self._rule
        if rule.kind == "cut":
            data, whole = data[: carried.left], len(data)
            carried.left -= whole
            writer.write(data)
            if carried.left <= 0:
                carried.reset()
            return
        if rule.kind == "stall" and writer is carried.ends[0]:
            carried.down += len(data)
            if carried.down > rule.amount:
                carried.dead = True
                return
        if rule.kind == "delay":
            await asyncio.sleep(self._chance.uniform(0, rule.amount))
        while rule.kind == "drip" and self._rule is rule and data:
            piece, data = data[:_PIECE], data[_PIECE:]
            await asyncio.sleep(len(piece) / rule.amount)
            writer.write(piece)
        if not carried.dead:
            writer.write(data)
            await writer.drain()
