"""Messages between the agent and a plugin in a process of its own, over a socket pair.

A message is a JSON object behind its length in bytes, four of them, big-endian. `do` says what it
is about. What comes from the plugin's side may be anything.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import orjson

MESSAGE_BYTES: Final = 4 * 1024 * 1024
_LENGTH: Final = 4


class WireError(Exception):
    """The other side sent what is no message."""


class Wire:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def waiting_bytes(self) -> int:
        """How much the other side has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    def put(self, do: str, **fields: Any) -> None:
        """Send a message without waiting. Raises TypeError for what JSON cannot carry."""
        body = orjson.dumps({"do": do, **fields})
        if len(body) > MESSAGE_BYTES:
            raise WireError(f"a message of {len(body)} bytes: at most {MESSAGE_BYTES} are sent")
        self._writer.write(len(body).to_bytes(_LENGTH, "big") + body)

    async def send(self, do: str, **fields: Any) -> None:
        """Send a message; wait while the other side has much to take."""
        self.put(do, **fields)
        await self._writer.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None once the other side has gone. Raises WireError."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
            if size > MESSAGE_BYTES:
                raise WireError(f"a message of {size} bytes: at most {MESSAGE_BYTES} are taken")
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise WireError(f"a message that is not JSON: {error}") from None
        if not isinstance(message, dict) or not isinstance(message.get("do"), str):
            raise WireError("a message that is no object with `do`")
        return message

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
