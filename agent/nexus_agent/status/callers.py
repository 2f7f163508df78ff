"""Everybody who calls: how many at once, in which order, and what happens when something breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import orjson
import structlog

from nexus_agent.plugin import Logger
from nexus_agent.status.connection import (
    JSON,
    Connection,
    GoneError,
    Limits,
    Lines,
    Request,
    RequestError,
    failure,
)
from nexus_agent.status.routes import Answer
from nexus_agent.status.source import QueryError, UnavailableError

_FULL_BODY: Final = orjson.dumps({"error": "too many connections: try again in a moment"}) + b"\n"
_FULL: Final = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\n"
    f"Content-Length: {len(_FULL_BODY)}\r\nConnection: close\r\n\r\n"
).encode() + _FULL_BODY

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Start = Callable[[Accept], Awaitable[asyncio.Server]]
Respond = Callable[[asyncio.StreamWriter, Request], Awaitable[Answer]]
"""Answers one request of the caller whom the writer writes to. Raises what `routes.answer` does."""


class Callers:
    """Talks with those who connect, each in a task, within the limits."""

    def __init__(self, respond: Respond, limits: Limits) -> None:
        self._respond = respond
        self._limits = limits
        self._group: asyncio.TaskGroup | None = None
        self._open = 0
        self._log: Logger = structlog.get_logger("status")

    async def serve(self, start: Start, started: Callable[[], None]) -> None:
        """Serve with the server that *start* makes until cancelled; then no connection is left.

        started: called once callers can connect. Raises what *start* does.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            server = await start(self._accept)
            started()
            try:
                await asyncio.Event().wait()
            finally:
                # Not wait_closed: from Python 3.12 on it waits for the callers to go.
                self._group = None
                server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._group is None:
            writer.transport.abort()
        elif self._open >= self._limits.connections:
            writer.write(_FULL)
            writer.close()
        else:
            self._open += 1
            task = self._group.create_task(self._serve(reader, writer), name="status:connection")
            # Not in the task: one that is cancelled before its first step never gets there.
            task.add_done_callback(lambda _: self._release(writer))

    def _release(self, writer: asyncio.StreamWriter) -> None:
        self._open -= 1
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer, self._limits)
        try:
            await self._converse(connection, writer)
            await connection.close()
        except GoneError as error:
            self._log.debug("a caller went away", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a fault in an answer must not end the agent
            self._log.error("a status request failed", exc_info=error)
            with suppress(GoneError):
                await connection.fail("the agent failed to answer; its log says why")

    async def _converse(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await connection.request()) is not None:
                reply = await self._answer(writer, request)
                if isinstance(reply, Lines):
                    await self._stream(connection, reply)
                else:
                    await connection.send(reply)
        except RequestError as error:
            await connection.send(error.reply)

    async def _answer(self, writer: asyncio.StreamWriter, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return await self._respond(writer, request)
        except QueryError as error:
            return failure(400, str(error))
        except UnavailableError as error:
            return failure(503, str(error))
        except TimeoutError:
            return failure(503, "the agent did not come up with an answer in time")

    async def _stream(self, connection: Connection, reply: Lines) -> None:
        try:
            async with reply.open as lines:
                await connection.stream(reply.content_type, lines)
        except QueryError as error:
            await connection.send(failure(400, str(error)))
        except UnavailableError as error:
            await connection.send(failure(503, str(error)))
