"""From `emit` to released: throughput, latency and what a trickle costs the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from box import box
from ceiling import loop
from figure import Figure, readings
from script import run_script

from nexus_agent.protocol import Stream
from nexus_agent.store.database import FILE_NAME
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority

_GOODBYE_S: Final = 10.0


@asynccontextmanager
async def peer(broker: Broker) -> AsyncIterator[dict[str, Any]]:
    """The acknowledging peer in a process of its own; what it reports is there after the block."""
    script = Path(__file__).with_name("peer.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), broker.url, str(broker.ca)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdout is None or process.stdin is None:
        raise RuntimeError("the peer has no pipes")
    report: dict[str, Any] = {}
    try:
        async with asyncio.timeout(_GOODBYE_S):
            await process.stdout.readline()
        yield report
        process.stdin.close()
        async with asyncio.timeout(_GOODBYE_S):
            said = await process.stdout.readline()
            await process.wait()
        if not said:
            raise RuntimeError(f"peer.py ended with code {process.returncode}")
        report.update(orjson.loads(said))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def durable(folder: Path, count: int) -> list[Figure]:
    """*count* events through the whole path, against a bare loop with the same parts."""
    authority = Authority(folder / "ca")
    broker = Broker(folder / "broker", authority, choose("auto"))
    await broker.start()
    try:
        async with peer(broker):
            elapsed, cpu = await run_script(
                *("box.py", broker.url, broker.ca, folder / "state", count), within=120
            )
    finally:
        await broker.stop()
    rate, (raw, _) = count / elapsed, loop(folder / "raw.db", count)
    return [
        Figure(
            "durable events",
            round(rate),
            "events/s",
            ">= 200000",
            rate >= 200_000,
            f"{broker.kind}, TLS, {count} events",
        ),
        Figure(
            "durable events, share of the raw ceiling",
            round(rate / raw, 3),
            "ratio",
            ">= 0.3",
            rate / raw >= 0.3,
            f"bare sqlite3 loop: {raw:.0f} events/s",
        ),
        Figure("agent CPU for 100,000 durable events", round(cpu / count * 1e5, 3), "s"),
    ]


async def latency(folder: Path, seconds: float) -> list[Figure]:
    """One durable `emit` at 1,000 a second offered."""
    waits: list[float] = []

    async def one(event: tuple[str, object]) -> None:
        started = time.perf_counter()
        await outbox.emit("bench", [event], Stream.EVENT)
        waits.append((time.perf_counter() - started) * 1000)

    count = int(seconds * 1000)
    async with box(folder / "latency", None) as outbox, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for n, event in enumerate(readings(count)):
            await asyncio.sleep(begin + n / 1000 - loop.time())
            group.create_task(one(event), name=f"emit:{n}")
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    where = f"{count} events, 1,000/s offered"
    return [
        Figure("one durable emit, p50", round(p50, 2), "ms", "<= 5", p50 <= 5, where),
        Figure("one durable emit, p99", round(p99, 2), "ms", "<= 20", p99 <= 20, where),
    ]


async def trickle(folder: Path, seconds: float) -> list[Figure]:
    """Twenty events a second, one by one, handed over: what the disk keeps and what it writes."""
    count = int(seconds * 20)
    async with box(folder / "trickle", None) as outbox:
        # The schema and the first page of every table are no event's cost.
        await outbox.emit("bench", readings(1), Stream.TELEMETRY)
        written = _written()
        for kind, data in readings(count):
            outbox.hand_over("bench", kind, data, Stream.TELEMETRY)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.1)
        written = _written() - written
    connection = sqlite3.connect(folder / "trickle" / FILE_NAME)
    (kept,) = connection.execute(
        "SELECT sum(pgsize) FROM dbstat WHERE name='segment_telemetry'"
    ).fetchone()
    connection.close()
    return [
        Figure(
            "trickle, kept", round(kept / count, 1), "bytes/event", "<= 100", kept / count <= 100
        ),
        Figure(
            "trickle, written",
            round(written / count),
            "bytes/event",
            "<= 1000",
            written / count <= 1000,
        ),
    ]


def _written() -> int:
    """Bytes that this process handed to write(2) and its kin so far (proc(5), wchar)."""
    for line in Path("/proc/self/io").read_text("ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no wchar")
