"""What an idle agent hands to TCP, packet by packet, and what that is in a month.

Three agents stand behind the real console, each through a relay that counts, and each does one
thing more often than by default: keep alive, introduce itself, or read its host. What one of these
costs does not depend on how often it happens, so a month is a sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from figure import Figure
from process import agent
from whole import Shop, shop

from nexus_agent.broker import BrokerAddress
from nexus_agent.config import BrokerSection
from nexus_demo.peer import Peer, connected
from nexus_demo.processes import free_port
from nexus_plugins.host.plugin import HostSettings

MONTH_S: Final = 30 * 86_400
_SETTLE_S: Final = 2.0
"""What follows on a packet, such as its acknowledgement, is there by then."""
_CYCLE_S: Final = 30.0
_TOML: Final = """\
[agent]
id = "{name}"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
{more}
"""
_PINGS: Final = "keepalive_s = 5"
_BIRTHS: Final = "presence_interval_s = 10"
_METRICS: Final = "[plugins.host]\ninterval_s = 5\nstate_path = '/'"


class Meter:
    """Carries connections to *target* on loopback and counts: bytes up, chunks up, bytes down."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.up = self.packets = self.down = 0
        self._target = target

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, far_writer, up=True), name="meter:up")
            group.create_task(self._pump(far_reader, writer, up=False), name="meter:down")

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with suppress(ConnectionError):  # an end that is gone ends the other, however it went
            while data := await reader.read(65_536):
                if up:
                    self.up += len(data)
                    self.packets += 1
                else:
                    self.down += len(data)
                writer.write(data)
        writer.close()


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that one packet and what follows on it take."""

    up: float
    down: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.up + other.up, self.down + other.down)

    def each(self, seconds: float) -> Cost:
        """Megabytes a month, once in so many seconds."""
        times = MONTH_S / seconds / 1e6
        return Cost(self.up * times, self.down * times)


async def traffic(folder: Path, cycles: int) -> list[Figure]:
    """*cycles* keep-alives and readings of the host, and half as many births, made a month."""
    async with shop(folder) as at, AsyncExitStack() as stack:
        address = BrokerAddress(url=at.broker.url, ca=at.broker.ca)
        peer = await stack.enter_async_context(connected(address))
        peer.acknowledging = False  # the console does
        meters = {
            name: await stack.enter_async_context(_behind_meter(folder / name, at, more))
            for name, more in (("pings", _PINGS), ("births", _BIRTHS), ("metrics", _METRICS))
        }
        async with asyncio.TaskGroup() as group:
            ping, birth, metrics = (
                group.create_task(_each(meters[name], count, times), name=name)
                for name, count, times in (
                    ("pings", lambda: meters["pings"].packets, cycles),
                    ("births", lambda: _births(peer, "births"), cycles // 2),
                    ("metrics", lambda: len(peer.of("metrics", "host.metrics")), cycles),
                )
            )
    return _month(ping.result(), birth.result(), metrics.result(), cycles)


@asynccontextmanager
async def _behind_meter(folder: Path, at: Shop, more: str) -> AsyncIterator[Meter]:
    """An agent that goes by its folder's name, and its meter."""
    await asyncio.to_thread(folder.mkdir)
    meter, config = Meter(at.broker.port), folder / "agent.toml"
    config.write_text(
        _TOML.format(name=folder.name, folder=folder, port=meter.port, ca=at.broker.ca, more=more)
    )
    async with meter.open(), agent(config):
        yield meter


def _births(peer: Peer, device: str) -> int:
    return len([1 for name, presence in peer.presence if name == device and presence.online])


async def _each(meter: Meter, count: Callable[[], int], cycles: int) -> Cost:
    """What each of *cycles* takes, the connection's set-up and the first one behind it left out."""
    await _rise(count, 1)
    await asyncio.sleep(_SETTLE_S)
    await _rise(count, count() + 1)
    await asyncio.sleep(_SETTLE_S)
    up, down, base = meter.up, meter.down, count()
    await _rise(count, base + cycles)
    await asyncio.sleep(_SETTLE_S)
    counted = count() - base
    return Cost((meter.up - up) / counted, (meter.down - down) / counted)


async def _rise(count: Callable[[], int], wanted: int) -> None:
    async with asyncio.timeout(_CYCLE_S * max(1, wanted - count())):
        while count() < wanted:
            await asyncio.sleep(0.05)


def _month(ping: Cost, birth: Cost, metrics: Cost, cycles: int) -> list[Figure]:
    broker = BrokerSection(url="mqtts://127.0.0.1")
    keepalive, presence = broker.keepalive_s, broker.presence_interval_s
    interval = HostSettings().interval_s
    quiet = ping.each(keepalive) + birth.each(presence)
    busy = quiet + metrics.each(interval)
    how = (
        f"30 days of: {ping.up:.0f} bytes up each {keepalive} s, birth {birth.up:.0f} each "
        f"{presence} s; {cycles} and {cycles // 2} measured; {quiet.down:.1f} MB down"
    )
    more = (
        f"as without, and {metrics.up:.0f} bytes each {interval:.0f} s for host.metrics; "
        f"{busy.down:.1f} MB down"
    )
    return [
        Figure(
            "idle traffic, keep-alive only",
            round(quiet.up, 2),
            "MB/month",
            "<= 5",
            quiet.up <= 5,
            how,
        ),
        Figure(
            "idle traffic, with host metrics",
            round(busy.up, 2),
            "MB/month",
            "<= 25",
            busy.up <= 25,
            more,
        ),
    ]
