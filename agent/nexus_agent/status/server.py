"""The status server: who may come in, how many at once, and what happens when something breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
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
from nexus_agent.status.listener import StatusError, listen
from nexus_agent.status.peer import READ_GROUP, Peer, Role, Rules, local_rules, peer_of
from nexus_agent.status.routes import Answer, answer
from nexus_agent.status.source import QueryError, Source, UnavailableError

__all__ = ["Limits", "StatusError", "StatusServer"]

_FULL_BODY: Final = orjson.dumps({"error": "too many connections: try again in a moment"}) + b"\n"
_FULL: Final = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\n"
    f"Content-Length: {len(_FULL_BODY)}\r\nConnection: close\r\n\r\n"
).encode() + _FULL_BODY


class StatusServer:
    """Answers on the Unix socket at *path* with what *source* says."""

    def __init__(self, path: Path, source: Source, *, limits: Limits | None = None) -> None:
        self._path = path
        self._source = source
        self._limits = limits or Limits()
        self._rules = Rules(0, None, None)
        self._group: asyncio.TaskGroup | None = None
        self._open = 0
        self._started = asyncio.Event()
        self._log: Logger = structlog.get_logger("status")

    async def started(self) -> None:
        """Return once callers can connect."""
        await self._started.wait()

    async def run(self) -> None:
        """Serve until cancelled; then no connection, task or socket file is left.

        Raises StatusError where the socket cannot be opened.
        """
        self._rules = await asyncio.to_thread(local_rules)
        listener = await asyncio.to_thread(listen, self._path, self._rules.read_gid)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                server = await asyncio.start_unix_server(self._accept, sock=listener.socket)
                self._started.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    # Not wait_closed: from Python 3.12 on it waits for the callers to go.
                    self._group = None
                    server.close()
        finally:
            listener.close()

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
            await self._converse(connection, peer_of(writer.get_extra_info("socket")))
            await connection.close()
        except GoneError as error:
            self._log.debug("a caller went away", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a fault in an answer must not end the agent
            self._log.error("a status request failed", exc_info=error)
            with suppress(GoneError):
                await connection.fail("the agent failed to answer; its log says why")

    async def _converse(self, connection: Connection, peer: Peer) -> None:
        try:
            while (request := await connection.request()) is not None:
                reply = await self._answer(peer, request)
                if isinstance(reply, Lines):
                    await self._stream(connection, reply)
                else:
                    await connection.send(reply)
        except RequestError as error:
            await connection.send(error.reply)

    async def _answer(self, peer: Peer, request: Request) -> Answer:
        role = self._rules.role(peer.uid, peer.groups)
        if role < Role.READ:
            return failure(
                403,
                f"user {peer.uid} may not see this agent: only members of the group "
                f"{READ_GROUP!r} may",
                close=True,
            )
        try:
            async with asyncio.timeout(self._limits.answer_s):
                return await answer(self._source, request)
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
