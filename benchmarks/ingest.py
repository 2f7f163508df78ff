"""The console's writer: from messages as the broker brings them to committed rows."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Final

from figure import Figure, readings

from nexus_agent.protocol import Stamp, Stream, Topic, encode_events, pack, seal
from nexus_console.db.engine import Database
from nexus_console.ingest import Inbox, Writer, now_ns
from nexus_console.intake import Inbound
from nexus_demo.postgresql import find_postgresql, postgresql

SEGMENT: Final = 500
BOXES: Final = 8
BOOT: Final = "eebf0257-c1cc-4e29-bf00-bca2699f6e37"


async def into_both(folder: Path, count: int) -> list[Figure]:
    """*count* events of eight boxes into each database, each segment once."""
    figures = [await _into(f"sqlite:///{folder}/console.db", "SQLite", count, 120_000)]
    programs = find_postgresql()
    if programs is None:
        print("  PostgreSQL is not installed", file=sys.stderr)
        return figures
    with postgresql(programs) as url:
        figures.append(await _into(url, "PostgreSQL", count, 50_000))
    return figures


async def _into(url: str, name: str, count: int, budget: int) -> Figure:
    database = Database(url)
    database.prepare()
    inbox = Inbox(max_messages=1_000_000, max_bytes=2**40)
    committed = threading.Semaphore(0)
    messages = [_message(n, committed) for n in range(count // SEGMENT)]
    for message in messages:
        inbox.put(message)
    writer = Writer(database, inbox, publish=lambda *_: True, came_up=lambda _: None)
    thread = threading.Thread(target=writer.run, name="writer")
    started, used = time.perf_counter(), time.process_time()
    thread.start()
    await asyncio.to_thread(lambda: [committed.acquire() for _ in messages])
    elapsed, used = time.perf_counter() - started, time.process_time() - used
    writer.stop()
    thread.join()
    database.close()
    rate = writer.totals.events / elapsed
    cpu = used / writer.totals.events * 100_000
    return Figure(
        f"console ingest, {name}",
        round(rate),
        "events/s",
        f">= {budget}",
        rate >= budget,
        f"{BOXES} boxes, segments of {SEGMENT}; {cpu:.2f} CPU-seconds for 100,000",
    )


def _message(number: int, committed: threading.Semaphore) -> Inbound:
    device = f"box-{number % BOXES}"
    now = now_ns()
    tails: list[bytes] = []
    for n, event in enumerate(readings(SEGMENT)):
        # Each at a time of its own, as plugins record them.
        stamp = Stamp(now + n * 2_000_000, n * 2_000_000, BOOT, synced=True)
        tails += encode_events(device=device, source="bench", stamp=stamp, events=[event])
    segment = seal(
        stream=Stream.TELEMETRY,
        epoch=1,
        first=number // BOXES * SEGMENT + 1,
        tails=tails,
        times=(now, now),
    )
    properties, payload = pack([segment])
    return Inbound(
        topic=Topic(device).data(Stream.TELEMETRY),
        payload=payload,
        properties=properties,
        retained=False,
        received=now,
        done=committed.release,
    )
