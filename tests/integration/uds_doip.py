"""DoIP gateways: doip-server in a process of its own, and one of ours that misbehaves."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

TESTER = 0x0E00
HEADER = struct.Struct("!BBHI")
Answer = Callable[[bytes], list[bytes]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def doip_server(folder: Path, modules: Mapping[int, Mapping[str, str | None]]) -> Iterator[int]:
    """doip-server with these modules, and its port. modules: target → question → answer, both as
    hexadecimal digits; None: no answer.
    """
    port = free_port()
    config = _configuration(folder, port, modules)
    process = subprocess.Popen(
        [sys.executable, "-m", "doip_server.main", "--gateway-config", str(config)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    ready = threading.Event()

    def listen(lines: IO[str]) -> None:
        """To the end: it stops when nobody reads its log."""
        for line in lines:
            said.append(line)
            if "ready to accept" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=listen, args=(process.stderr,), name="doip-server's log")
    reader.start()
    try:
        ready.wait(20)
        assert process.poll() is None, "".join(said)
        yield port
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def _configuration(
    folder: Path, port: int, modules: Mapping[int, Mapping[str, str | None]]
) -> Path:
    for target, answers in modules.items():
        services = {
            f"s{target:04X}_{question}": {
                "request": f"0x{question}",
                "responses": [] if answer is None else [f"0x{answer}"],
                "no_response": answer is None,
            }
            for question, answer in answers.items()
        }
        ecu = {
            "name": f"M{target:04X}",
            "target_address": target,
            "tester_addresses": [TESTER],
            "uds_services": {"service_files": [f"services_{target:04X}.yaml"]},
        }
        _write(folder / f"services_{target:04X}.yaml", {"specific_services": services})
        _write(folder / f"ecu_{target:04X}.yaml", {"ecu": ecu})
    gateway = {
        "name": "Gateway",
        "logical_address": 0x1000,
        "network": {"host": "127.0.0.1", "port": port, "max_connections": 5, "timeout": 30},
        "protocol": {"version": 2, "inverse_version": 0xFD},
        "ecus": [f"ecu_{target:04X}.yaml" for target in modules],
    }
    path = folder / "gateway.yaml"
    _write(path, {"gateway": gateway, "logging": {"level": "INFO"}})
    return path


def _write(path: Path, document: Any) -> None:
    path.write_text(yaml.safe_dump(document), "utf-8")


@dataclass
class Gateway:
    """A gateway that does as it is told; what it may do wrong are its fields.

    modules: target → its answers to a question, each a message.
    """

    modules: Mapping[int, Answer]
    unreachable: frozenset[int] = frozenset()
    """Answered with code 06."""
    denies: int | None = None
    """The code with which routing activation is denied."""
    one_module: bool = False
    """A connection that asks a second module is closed."""
    idle_s: float | None = None
    """A connection on which nothing comes for so long is closed."""
    dies_at: bytes | None = None
    """At this question it is gone for good."""
    drops_at: set[bytes] = field(default_factory=set)
    """At each of these questions it closes the connection, once."""
    unnoticed: frozenset[int] = frozenset()
    """Targets of which it takes no notice."""
    port: int = 0
    connections: int = 0
    asked: list[tuple[int, bytes]] = field(default_factory=list)
    alive_checks: int = 0
    """How many of them were answered."""
    _server: asyncio.Server | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        first: int | None = None
        try:
            while True:
                async with asyncio.timeout(self.idle_s):
                    kind, payload = await _read(reader)
                if kind == 0x0005:
                    code = 0x10 if self.denies is None else self.denies
                    source = int.from_bytes(payload[:2], "big")
                    _send(writer, 0x0006, struct.pack("!HHBI", source, 0x1000, code, 0))
                    _send(writer, 0x0007, b"")
                elif kind == 0x0008:
                    self.alive_checks += 1
                elif kind == 0x8001:
                    target = int.from_bytes(payload[2:4], "big")
                    first = target if first is None else first
                    if self.one_module and target != first:
                        return
                    if not self._diagnose(writer, target, payload[4:]):
                        return
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            return
        finally:
            writer.close()

    def _diagnose(self, writer: asyncio.StreamWriter, target: int, question: bytes) -> bool:
        """Whether the connection stays."""
        self.asked.append((target, question))
        if question == self.dies_at and self._server is not None:
            self._server.close()
            return False
        if question in self.drops_at:
            self.drops_at.remove(question)
            return False
        if target in self.unnoticed:
            return True
        ends = struct.pack("!HH", target, TESTER)
        if target in self.unreachable or target not in self.modules:
            code = b"\x06" if target in self.unreachable else b"\x03"
            _send(writer, 0x8003, ends + code)
            return True
        _send(writer, 0x8002, ends + b"\0")
        for message in self.modules[target](question):
            _send(writer, 0x8001, ends + message)
        return True


def _send(writer: asyncio.StreamWriter, kind: int, payload: bytes) -> None:
    writer.write(HEADER.pack(2, 0xFD, kind, len(payload)) + payload)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    _, _, kind, length = HEADER.unpack(await reader.readexactly(HEADER.size))
    return kind, await reader.readexactly(length)
