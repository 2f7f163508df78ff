"""What every contestant runs on: the remote broker, the line to it, the far end, the desk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from nexus_demo.broker import find_mosquitto
from nexus_demo.certs import Authority
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import DemoError, NotYet, until
from peers.producers.feed import Order

HERE: Final = Path(__file__).parents[1]
"""Where `peers` is imported from."""
_ANSWER_S: Final = 10.0
_BEGIN_S: Final = 20.0
_CHUNK: Final = 65_536
_REMOTE: Final = """\
user root
allow_anonymous true
listener {port} 127.0.0.1
cafile {ca}
certfile {cert}
keyfile {key}
listener {plain} 127.0.0.1
persistence false
max_inflight_messages 1000
max_queued_messages 0
set_tcp_nodelay true
"""


@asynccontextmanager
async def _limit(what: str, seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError that names *what* where the block takes longer than *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"{what}: not within {seconds:g} s") from None


class Remote:
    """The broker of the fleet: TLS at *port*, and no limit in which anything would be dropped."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder / "ca")
        server = authority.server("broker")
        self.ca = authority.ca
        self.port, self.plain = free_port(), free_port()
        self.url = f"mqtts://127.0.0.1:{self.port}"
        config = folder / "remote.conf"
        config.write_text(
            _REMOTE.format(
                port=self.port, plain=self.plain, ca=self.ca, cert=server.cert, key=server.key
            )
        )
        self._process = Process("remote", mosquitto(config), folder / "remote.log")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await self._process.start()
        try:
            await listening(self._process, self.plain)
            yield
        finally:
            await self._process.stop()


def mosquitto(config: Path) -> list[str]:
    """The command that runs it. Raises DemoError where there is none."""
    found = find_mosquitto()
    if found is None:
        raise DemoError("there is no mosquitto on this machine")
    return [found, "-c", str(config)]


async def listening(process: Process, port: int) -> None:
    """Return once *process* takes connections."""

    async def answers() -> None:
        process.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise NotYet(str(error)) from None
        writer.close()

    await until(f"{process.name} listens", answers, within=_ANSWER_S, every=0.01)


class Line:
    """The line to the remote broker, which counts what goes up and can be cut."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.up = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Refuse new connections; those that there were are gone without a goodbye."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, far_writer}
        self._ends |= ends
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, far_writer, up=True), name="line:up")
            group.create_task(self._pump(far_reader, writer, up=False), name="line:down")
        self._ends -= ends

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with contextlib.suppress(OSError):  # an end that is gone ends the other, however it went
            while data := await reader.read(_CHUNK):
                self.up += len(data) if up else 0
                writer.write(data)
                await writer.drain()
        writer.close()


class Desk:
    """Gives orders to the producer that connected last, and keeps its receipts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.accepted: list[tuple[int, int]] = []
        self.started = 0.0
        self._writer: asyncio.StreamWriter | None = None
        self._news = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            if self._writer is not None:
                self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._news.set()
        with contextlib.suppress(ConnectionError):  # it may be killed: that is what a part is for
            while (line := await reader.readline()).endswith(b"\n"):
                word, rest = line.decode().split(maxsplit=1)
                if word == "start":
                    self.started = float(rest)
                else:
                    self.accepted.append((int(word), int(rest)))
                self._news.set()
        if self._writer is writer:
            self._writer = None

    async def order(self, order: Order) -> None:
        """Give an order to the producer, once there is one, and return when it begins."""
        self.started = 0.0
        await self._until(lambda: self._writer is not None, "the producer has come")
        if self._writer is not None:
            self._writer.write(f"{order.first} {order.count} {order.rate}\n".encode())
        await self._until(lambda: self.started > 0, "the producer begins")

    async def taken(self, wanted: int, within: float) -> None:
        """Return once *wanted* events have been accepted in all."""
        await self._until(lambda: self.promised >= wanted, f"{wanted} events accepted", within)

    @property
    def promised(self) -> int:
        """Events of which the producer was told that they are accepted."""
        return sum(last - first + 1 for first, last in self.accepted)

    async def _until(
        self, condition: Callable[[], bool], what: str, within: float = _BEGIN_S
    ) -> None:
        async with _limit(what, within):
            while not condition():
                self._news.clear()
                await self._news.wait()


class FarEnd:
    """The process of `far.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._online: asyncio.Queue[float] = asyncio.Queue()

    async def listen(self) -> None:
        """Sort what it says. Raises RuntimeError if it ends."""
        reader = self._process.stdout
        while reader is not None and (line := await reader.readline()):
            word, _, rest = line.decode().strip().partition(" ")
            if word == "online":
                self._online.put_nowait(float(rest))
            else:
                self._lines.put_nowait((word, rest))
        raise RuntimeError("the far end has ended")

    async def online(self, since: float, within: float) -> float:
        """When the contestant came online after *since* (CLOCK_MONOTONIC)."""
        async with _limit("online", within):
            while (moment := await self._online.get()) < since:
                pass
        return moment

    async def expect(self, word: str, within: float) -> str:
        async with _limit(f"the far end says {word!r}", within):
            while (answer := await self._lines.get())[0] != word:
                pass
        return answer[1]

    async def reached(self, count: int, within: float) -> float:
        """When (CLOCK_MONOTONIC) *count* events had arrived."""
        self._ask(f"until {count}")
        return float((await self.expect("reached", within)).split()[1])

    async def numbers(self) -> dict[str, Any]:
        """{"ranges": of the numbers that arrived, "events": all, twice or not}."""
        self._ask("numbers")
        found: dict[str, Any] = json.loads(await self.expect("numbers", _ANSWER_S))
        return found

    def _ask(self, text: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{text}\n".encode())


@asynccontextmanager
async def far_end(form: str, remote: Remote, how: str) -> AsyncIterator[FarEnd]:
    """A far end that has subscribed, for the length of a block. how: `count` or `numbers`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "peers.far", form, remote.url, str(remote.ca), how),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=HERE,
        limit=16 * 1024 * 1024,
    )
    far = FarEnd(process)
    try:
        async with asyncio.TaskGroup() as group:
            listening_to = group.create_task(far.listen(), name="far")
            await far.expect("ready", _ANSWER_S)
            yield far
            listening_to.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
