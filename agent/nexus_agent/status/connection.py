"""One HTTP/1.1 connection (RFC 9112): requests in, answers out, everything bounded.

h11 knows the protocol; this module moves its bytes and sets the limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import h11
import orjson

JSON: Final = "application/json"
_CHUNK: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may take of the agent. Times are seconds."""

    connections: int = 32
    request_s: float = 30.0
    """From the end of an answer until the next request has arrived whole."""
    answer_s: float = 10.0
    write_s: float = 30.0
    """How long a caller may leave an answer unread; then it is cut off."""
    head_bytes: int = 16 * 1024
    """Of a head that has not come whole yet."""
    body_bytes: int = 16 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body, if it had one, was read and left aside: nothing here takes one."""

    method: str
    target: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. close ends the connection after it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer without an end: it is opened before its head is sent, and closed after it."""

    content_type: str
    open: AbstractAsyncContextManager[AsyncIterator[bytes]]


def failure(status: int, sentence: str, *, close: bool = False) -> Reply:
    """An answer that says in one plain sentence what is wrong."""
    return Reply(status, orjson.dumps({"error": sentence}) + b"\n", close=close)


class RequestError(Exception):
    """The request cannot be read on; `reply` says why, and the connection ends with it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.reply = failure(status, sentence, close=True)


class GoneError(Exception):
    """The caller closed the connection, or left it unread for too long."""


class Connection:
    """The server's end of one connection; requests are answered one after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._bodiless = False

    async def request(self) -> Request | None:
        """The next request, or None where the caller has no more or says nothing for too long.

        Raises RequestError for what is no request, too large or too slow, and GoneError.
        """
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        try:
            async with asyncio.timeout(self._limits.request_s):
                return await self._read_request()
        except TimeoutError:
            if self._http.their_state is h11.IDLE and not self._http.trailing_data[0]:
                return None
            raise RequestError(408, "the request did not arrive in time") from None
        except h11.RemoteProtocolError as error:
            raise RequestError(error.error_status_hint, f"not a request: {error}") from None
        except OSError as error:
            raise GoneError(str(error)) from None

    async def _read_request(self) -> Request | None:
        request: Request | None = None
        body = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    raise RequestError(417, "requests take no body here")
                self._http.receive_data(await self._reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                request = Request(event.method.decode("ascii"), event.target.decode("ascii"))
                self._bodiless = request.method == "HEAD"
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > self._limits.body_bytes:
                    raise RequestError(413, "the request's body is too large")
            else:  # EndOfMessage, or ConnectionClosed in place of a request
                return request

    async def send(self, reply: Reply) -> None:
        """Answer the request that was read last. Raises GoneError."""
        headers = [("Content-Length", str(len(reply.body))), *reply.headers]
        if reply.close:
            headers.append(("Connection", "close"))
        self._put_head(reply.status, reply.content_type, headers)
        if not self._bodiless:
            self._put(h11.Data(data=reply.body))
        self._put(h11.EndOfMessage())
        await self._drain()

    async def fail(self, sentence: str) -> None:
        """Answer with status 500, unless an answer has begun already; then close."""
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self.send(failure(500, sentence, close=True))
        await self.close()

    async def stream(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Answer with chunks for as long as they come and the caller stays.

        The connection ends with it, so a caller that closes its sending side is taken as gone.
        """
        self._put_head(200, content_type, [("Connection", "close")])
        if self._bodiless:
            self._put(h11.EndOfMessage())
            return
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send_chunks(chunks), name="status:follow")
            leaving = group.create_task(self._wait_until_left(), name="status:follow-end")
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            sending.cancel()
            leaving.cancel()

    async def _send_chunks(self, chunks: AsyncIterator[bytes]) -> None:
        with suppress(GoneError):
            await self._drain()
            async for chunk in chunks:
                self._put(h11.Data(data=chunk))
                await self._drain()
            self._put(h11.EndOfMessage())
            await self._drain()

    async def _wait_until_left(self) -> None:
        with suppress(OSError):
            while await self._reader.read(_CHUNK):
                pass

    def _put_head(self, status: int, content_type: str, more: list[tuple[str, str]]) -> None:
        headers = [("Date", formatdate(usegmt=True)), ("Content-Type", content_type), *more]
        reason = HTTPStatus(status).phrase.encode()
        self._put(h11.Response(status_code=status, headers=headers, reason=reason))

    def _put(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._limits.write_s):
                await self._writer.drain()
        except OSError as error:  # TimeoutError is one
            raise GoneError(str(error)) from None

    async def close(self) -> None:
        """End the connection once the caller has what was sent, or does not take it in time."""
        self._writer.close()
        with suppress(OSError):
            async with asyncio.timeout(self._limits.write_s):
                await self._writer.wait_closed()
