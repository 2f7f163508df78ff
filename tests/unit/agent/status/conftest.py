"""A box with real events behind a real status socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nexus_agent.plugin import PluginError, Progress
from nexus_agent.protocol import Stream
from nexus_agent.status.server import Limits, StatusServer
from nexus_agent.status.source import QueryError, UnavailableError


class Box:
    """A Source over a list of events: cursors are their sequence numbers."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.followers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.changed = asyncio.Condition()
        self.fault: Exception | None = None
        self.stuck = asyncio.Event()
        self.scans: list[dict[str, str]] = []
        self.scanning = 0
        self.scanned = asyncio.Event()
        self.scan_error: PluginError | None = None

    async def commit(
        self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT
    ) -> dict[str, Any]:
        seq = len(self.history) + 1
        event = {"cursor": str(seq), "epoch": 1, "stream": stream, "seq": seq}
        event |= {"type": event_type, "data": data}
        self.history.append(event)
        for queue in self.followers:
            queue.put_nowait(event)
        return event

    async def followed(self, count: int) -> None:
        """Wait until exactly *count* callers follow."""
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.followers) == count)

    async def status(self) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return {"v": 1, "device": "box-1"}

    def plugins(self) -> dict[str, Any]:
        return {"v": 1, "plugins": []}

    async def outbox(self) -> dict[str, Any]:
        await self.stuck.wait()
        return {"v": 1, "streams": []}

    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        if after and not after.isdigit():
            raise QueryError(f"after: {after!r} is no cursor")
        found = [
            event
            for event in self.history
            if event_type in {None, event["type"]} and stream in {None, event["stream"]}
        ]
        if after is None:
            found = found[-limit:]
        else:
            found = [event for event in found if event["seq"] > int(after or "0")][:limit]
        return {"v": 1, "events": found, "next": found[-1]["cursor"] if found else after}

    @asynccontextmanager
    async def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        if self.fault is not None:
            raise self.fault
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        async def events() -> AsyncIterator[dict[str, Any]]:
            while (event := await queue.get()) is not None:
                if event_type in {None, event["type"]} and stream in {None, event["stream"]}:
                    yield event

        await self._follow(queue)
        try:
            yield events()
        finally:
            await self._unfollow(queue)

    async def _follow(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        async with self.changed:
            self.followers.append(queue)
            self.changed.notify_all()

    async def _unfollow(self, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        async with self.changed:
            self.followers.remove(queue)
            self.changed.notify_all()

    async def metrics(self) -> str:
        raise UnavailableError("the outbox is being repaired")

    async def scan(self, given: Mapping[str, str], progress: Progress) -> dict[str, Any]:
        """Say that it begins, and end once `scanned`."""
        self.scans.append(dict(given))
        await self._scan(1)
        try:
            progress("reading the VIN")
            await self.scanned.wait()
        finally:
            await self._scan(-1)
        if self.scan_error is not None:
            raise self.scan_error
        return {"modules": []}

    async def _scan(self, change: int) -> None:
        async with self.changed:
            self.scanning += change
            self.changed.notify_all()

    async def scan_left(self) -> None:
        """Wait until nobody scans."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.scanning == 0)


@asynccontextmanager
async def serving(
    path: Path, box: Box, limits: Limits | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """A status server for the length of the block."""
    server = StatusServer(path, box, scans=box.scan, limits=limits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="status")
        async with asyncio.timeout(5):
            await server.started()
        try:
            yield task
        finally:
            task.cancel()


Serve = Callable[..., Awaitable[asyncio.Task[None]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def box() -> Box:
    return Box()


@pytest_asyncio.fixture
async def serve(path: Path, box: Box) -> AsyncIterator[Serve]:
    """Start the server, with limits if need be; it stops with the test."""
    async with AsyncExitStack() as stack:

        async def start(**limits: float) -> asyncio.Task[None]:
            given = Limits(**limits)  # type: ignore[arg-type] # the int ones are given as int
            return await stack.enter_async_context(serving(path, box, given))

        yield start


class Caller:
    """A raw connection: bytes out, bytes in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, target: str, *headers: str, method: str = "GET") -> None:
        head = "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", *headers))
        self.send(head.encode() + b"\r\n\r\n")

    async def head(self) -> bytes:
        """The next answer's head."""
        async with asyncio.timeout(5):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def line(self) -> bytes:
        async with asyncio.timeout(5):
            return await self.reader.readline()

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(5):
            return await self.reader.read()


Dial = Callable[[], Awaitable[Caller]]


@pytest_asyncio.fixture
async def dial(path: Path) -> AsyncIterator[Dial]:
    """Open a raw connection; it is closed with the test."""
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Caller:
        reader, writer = await asyncio.open_unix_connection(path)
        writers.append(writer)
        return Caller(reader, writer)

    yield connect
    for writer in writers:
        writer.transport.abort()
        await asyncio.sleep(0)
