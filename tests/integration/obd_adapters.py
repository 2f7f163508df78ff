"""Adapters that misbehave: they speak an ELM327's bytes over TCP or a pseudo-terminal.

The car behind an adapter never says a value twice, so a value tells which question it answers.
"""

from __future__ import annotations

import asyncio
import os
import time
import tty
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.obd import ObdPlugin
from nexus_plugins.obd.settings import ObdSettings

VIN: Final = "1D4GP00R55B123450"
PROMPT: Final = b"\r\r>"
KNOWN: Final = {
    **dict.fromkeys(("ATE0", "ATL0", "ATS0", "ATH1", "ATSP0"), "OK"),
    **dict.fromkeys(("ATAT1", "ATCEA", "ATCSM1"), "OK"),
    "AT@1": "OBDII to RS232 Interpreter",
    "ATRV": "12.6V",
    "ATPPS": "00:FF F  01:FF F  02:FF F  03:32 F\r04:01 F  05:FF F  06:F1 F  07:09 F",
    "ATIGN": "ON",
    "ATAMC": "00",
    "ATDPN": "A6",
}
"""What a genuine ELM327 v2.1 says to what it is asked here."""

# -- the car --------------------------------------------------------------------------------------


@dataclass
class Car:
    """ecus: control unit → PIDs. Every value it ever said of each PID is in *said*."""

    ecus: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"7E8": (0x04, 0x05, 0x0C, 0x0D)}
    )
    fixed: dict[int, bytes] = field(default_factory=dict)
    batches: bool = True
    said: dict[int, list[bytes]] = field(default_factory=dict)

    def messages(self, request: bytes) -> Iterator[tuple[str, bytes]]:
        """(control unit, message) of each that answers."""
        service, asked = request[0], request[1:]
        for ecu, known in self.ecus.items():
            if service == 0x01 and asked[:1] == b"\0":
                bits = sum(1 << (32 - pid) for pid in known if pid <= 32)
                yield ecu, b"\x41\x00" + bits.to_bytes(4, "big")
            elif service == 0x01 and (len(asked) == 1 or self.batches):
                values = [bytes([pid]) + self._value(pid) for pid in asked if pid in known]
                if values:
                    yield ecu, b"\x41" + b"".join(values)
            elif request == b"\x09\x02" and ecu == "7E8":
                yield ecu, b"\x49\x02\x01" + VIN.encode()
            elif service in {0x03, 0x07, 0x0A}:
                yield ecu, bytes([service + 0x40, 0])
            elif service == 0x04:
                yield ecu, b"\x44"

    def _value(self, pid: int) -> bytes:
        told = self.said.setdefault(pid, [])
        data = self.fixed.get(pid)
        if data is None:
            length = 2 if pid == 0x0C else 1
            data = ((len(told) + 1) % 256**length).to_bytes(length, "big")
        told.append(data)
        return data


def frames(ecu: str, message: bytes) -> list[str]:
    """A message's lines as ISO 15765-2 has them, with headers."""
    if len(message) <= 7:
        parts = [bytes([len(message)]) + message]
    else:
        rest = [message[i : i + 7] for i in range(6, len(message), 7)]
        parts = [bytes([0x10, len(message)]) + message[:6]]
        parts += [bytes([0x20 + (i + 1) % 16]) + part for i, part in enumerate(rest)]
    return [ecu + part.hex().upper() for part in parts]


# -- the adapter ----------------------------------------------------------------------------------

Bits = list[tuple[float, bytes | None]]
"""(seconds after the last, bytes) to say; None hangs up."""
Fault = Callable[[str, bytes], Bits]
"""What becomes of the answer, prompt included, to a request that is no AT command."""


def whole(_: str, answer: bytes) -> Bits:
    return [(0, answer)]


@dataclass
class Adapter:
    """fault: what it does to answers. known: AT command → answer; `?` to all others."""

    car: Car = field(default_factory=Car)
    fault: Fault = whole
    version: str = "ELM327 v2.1"
    known: dict[str, str] = field(default_factory=lambda: dict(KNOWN))
    echo: bool = False
    headers: bool = True
    asked: list[str] = field(default_factory=list)
    connections: int = 0

    def bits(self, request: str) -> Bits:
        self.asked.append(request)
        echo = request.encode() + b"\r" if self.echo else b""
        if request == "ATZ":
            return [(0, echo + b"\r\r" + self.version.encode() + PROMPT)]
        if not request[:1].isdigit():
            return [(0, echo + self.known.get(request, "?").encode() + PROMPT)]
        return self.fault(request, echo + self._answer(request) + PROMPT)

    def _answer(self, request: str) -> bytes:
        messages = self.car.messages(bytes.fromhex(request))
        if self.headers:
            lines = [line for ecu, message in messages for line in frames(ecu, message)]
        else:
            lines = [message.hex().upper() for _, message in messages]
        return "\r".join(lines or ["NO DATA"]).encode()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The port, while it listens on TCP."""
        async with asyncio.TaskGroup() as group:

            async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                self.connections += 1
                line = _Line(self, writer.write, writer.close)
                talking = group.create_task(line.talk(), name="talk")
                try:
                    while data := await reader.read(1000):
                        line.received(data)
                except ConnectionError:
                    pass
                finally:
                    talking.cancel()
                    writer.close()

            server = await asyncio.start_server(client, "127.0.0.1", 0)
            async with server:
                yield f"socket://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                server.close()

    @asynccontextmanager
    async def wired(self) -> AsyncIterator[str]:
        """The path of a pseudo-terminal that it is at the far end of."""
        loop = asyncio.get_running_loop()
        with terminal() as (far, path):
            line = _Line(self, lambda data: os.write(far, data), lambda: None)
            loop.add_reader(far, lambda: line.received(os.read(far, 1000)))
            try:
                async with asyncio.TaskGroup() as group:
                    talking = group.create_task(line.talk(), name="talk")
                    yield path
                    talking.cancel()
            finally:
                loop.remove_reader(far)


class _Line:
    """One connection: requests come in, and bits of answers go out in their order."""

    def __init__(
        self, adapter: Adapter, write: Callable[[bytes], Any], hang_up: Callable[[], None]
    ) -> None:
        self._adapter = adapter
        self._write = write
        self._hang_up = hang_up
        self._buffer = b""
        self._waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()

    def received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r")
        for line in lines:
            for bit in self._adapter.bits(line.decode()):
                self._waiting.put_nowait(bit)

    async def talk(self) -> None:
        while True:
            seconds, data = await self._waiting.get()
            await asyncio.sleep(seconds)
            if data is None:
                self._hang_up()
                return
            self._write(data)


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the descriptor of its far end and the path of its near end."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    try:
        yield far, os.ttyname(near)
    finally:
        os.close(near)
        os.close(far)


# -- the plugin at it -----------------------------------------------------------------------------

Context = RecordingContext[ObdSettings]


def context_for(port: str | None, *, state: MemoryState | None = None, **settings: Any) -> Context:
    quick = {"interval_s": 0.02, "timeout_s": 0.3, "reconnect_max_s": 0.05, "probe_interval_s": 0.1}
    rates = {"0x05": 0.02, "0x04": 0.02}
    document = {"port": port, "rates": rates, **quick, **settings}
    return RecordingContext(ObdSettings.model_validate(document), state=state)


@asynccontextmanager
async def plugged(context: Context) -> AsyncIterator[ObdPlugin]:
    """The plugin running until the block ends."""
    plugin = ObdPlugin(context)
    async with running(plugin):
        yield plugin


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def values(context: Context, pid: int) -> list[Any]:
    return [d["value"] for d in context.of("telemetry.pid") if d["pid"] == pid and d["value"]]


def states(context: Context, adapter: str | None = None) -> list[str]:
    told = context.of("adapter.state")
    return [data["state"] for data in told if adapter in {None, data["adapter"]}]


_FORMULAS: Final[dict[int, Callable[[bytes], float]]] = {
    0x04: lambda data: round(data[0] * 100 / 255, 2),
    0x05: lambda data: data[0] - 40,
    0x0C: lambda data: int.from_bytes(data, "big") / 4,
    0x0D: lambda data: data[0],
}


def invented(context: Context, car: Car) -> list[tuple[int, Any]]:
    """(PID, value) of what was told and the car did not say, or not in that order."""
    wrong = []
    for pid, formula in _FORMULAS.items():
        said = iter([formula(data) for data in car.said.get(pid, ())])
        wrong += [(pid, value) for value in _ok(context, pid) if value not in said]
    return wrong


def _ok(context: Context, pid: int) -> Iterable[Any]:
    told = context.of("telemetry.pid")
    return [d["value"] for d in told if d["pid"] == pid and d["quality"] == "ok"]


# -- the loop -------------------------------------------------------------------------------------


@asynccontextmanager
async def heartbeat() -> AsyncIterator[list[float]]:
    """How long the loop stood still, in s, each time.

    What this thread waited for a processor that others had is not the loop's doing and left out
    (proc(5), schedstat: the second figure, ns).
    """
    stalls: list[float] = []

    async def beat() -> None:
        while True:
            begun, waited = time.monotonic(), _waited()
            await asyncio.sleep(0.001)
            stalls.append(time.monotonic() - begun - 0.001 - (_waited() - waited))

    async with asyncio.TaskGroup() as group:
        beating = group.create_task(beat(), name="heartbeat")
        yield stalls
        beating.cancel()


def _waited() -> float:
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:  # a kernel without it
        return 0.0
