"""A long backlog of one agent, in a process of its own.

`backlog.py fill URL CA FOLDER COUNT` emits COUNT events while nobody is at URL and prints
[seconds, growth of the resident memory in bytes behind the first 50,000].
`backlog.py drain URL CA FOLDER COUNT` delivers them and prints what `Drain` holds.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil
import uvloop
from box import box
from figure import SEED, readings

from nexus_agent import logs
from nexus_agent.broker import BrokerAddress
from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stamp, Stream
from nexus_agent.store.outbox import Outbox

WARM_UP: Final = 50_000
GAP_NS: Final = 50_000_000
_FILL_S: Final = 120
_DRAIN_S: Final = 90
_BYTES_ACKED: Final = slice(120, 128)
"""tcpi_bytes_acked in Linux's struct tcp_info (include/uapi/linux/tcp.h, since 4.1)."""


@dataclass(frozen=True, slots=True)
class Drain:
    """rate: events a second, first to last acknowledgement; wire_bytes: taken by TCP and confirmed.

    alert_at: CLOCK_MONOTONIC when the alert was given to `emit`; alert_waiting: events that waited
    then.
    """

    rate: float
    wire_bytes: int
    alert_at: float
    alert_waiting: int


class ScatteredClock(Clock):
    """A clock that leaps by about `GAP_NS` between two looks: no two events have one time.

    Times are what compresses worst of a reading; those of a tight loop would be far too alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self._random = random.Random(SEED)  # noqa: S311 - a load, no secret
        self._ahead = 0

    def stamp(self) -> Stamp:
        stamp = super().stamp()
        self._ahead += self._random.randrange(2 * GAP_NS)
        return replace(stamp, wall=stamp.wall + self._ahead, mono=stamp.mono + self._ahead)


async def fill(outbox: Outbox, count: int) -> tuple[float, int]:
    """Seconds that it took, and bytes by which the resident memory grew at its highest."""
    # The same readings over and over: another million of them would be most of the memory.
    events = readings(min(count, WARM_UP))
    started = time.perf_counter()
    await _hand_over(outbox, events)
    async with _peak_memory() as peak:
        base = peak[0]
        for _ in range(count // len(events) - 1):
            await _hand_over(outbox, events)
    return time.perf_counter() - started, peak[0] - base


async def _hand_over(outbox: Outbox, events: list[tuple[str, object]]) -> None:
    """One by one, as plugins do; durable on return."""
    *most, last = events
    for number, (kind, data) in enumerate(most):
        if number % 100 == 0:
            await asyncio.sleep(0)
        while True:
            try:
                outbox.hand_over("bench", kind, data, Stream.TELEMETRY)
                break
            except EmitError:
                await asyncio.sleep(0.005)
    await outbox.emit("bench", [last], Stream.TELEMETRY)


@asynccontextmanager
async def _peak_memory() -> AsyncIterator[list[int]]:
    """A list of one item, the highest resident memory of this process in bytes so far."""
    process = psutil.Process()
    peak = [process.memory_info().rss]

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.02)
            peak[0] = max(peak[0], process.memory_info().rss)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch(), name="memory")
        yield peak
        peak[0] = max(peak[0], process.memory_info().rss)
        task.cancel()


async def drain(outbox: Outbox, port: int, count: int) -> Drain:
    """Wait until all is delivered, with an alert in the middle."""
    first = await _delivered(outbox, 1)
    started = time.perf_counter()
    waiting = count - await _delivered(outbox, count // 2)
    alert_at = time.monotonic()
    await outbox.emit("bench", [("bench.alert", {"text": "in the middle"})], Stream.ALERT)
    await _delivered(outbox, count)
    rate = (count - first) / (time.perf_counter() - started)
    while not outbox.position(Stream.ALERT)[0]:
        await asyncio.sleep(0.002)
    return Drain(rate, _handed_to_tcp(port), alert_at, waiting)


async def _delivered(outbox: Outbox, wanted: int) -> int:
    """The last acknowledged sequence once it is *wanted* or beyond."""
    while (reached := outbox.position(Stream.TELEMETRY)[0]) < wanted:
        await asyncio.sleep(0.002)
    return reached


def _handed_to_tcp(port: int) -> int:
    """Bytes that the far side of this process's connection to *port* has confirmed."""
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port:
            with socket.fromfd(connection.fd, socket.AF_INET, socket.SOCK_STREAM) as line:
                info = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            return int.from_bytes(info[_BYTES_ACKED], sys.byteorder)
    raise RuntimeError(f"there is no connection to port {port}")


async def main() -> None:
    action, url, ca, folder, count = sys.argv[1:]
    address = BrokerAddress(url=url, ca=Path(ca))
    async with box(Path(folder), address, ScatteredClock()) as outbox:
        if action == "fill":
            async with asyncio.timeout(_FILL_S):
                print(json.dumps(await fill(outbox, int(count))))
        else:
            async with asyncio.timeout(_DRAIN_S):
                print(json.dumps(asdict(await drain(outbox, urlsplit(url).port or 0, int(count)))))


if __name__ == "__main__":
    logs.configure(logs.LogSettings(level="warning"))
    uvloop.run(main())
