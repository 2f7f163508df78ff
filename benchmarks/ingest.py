"""The console's writer: from messages as the broker brings them to committed rows."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Final

from figure import Figure, readings

from nexus_agent.protocol import Stamp, Stream, Topic, encode_events, pack, seal
from nexus_console.db.engine import Database
from nexus_console.ingest import Inbox, Writer, now_ns
from nexus_console.intake import Inbound

SEGMENT: Final = 500
BOXES: Final = 8


async def into_sqlite(folder: Path, count: int) -> list[Figure]:
    """*count* events of eight boxes into SQLite, each segment once."""
    database = Database(f"sqlite:///{folder}/console.db")
    database.prepare()
    inbox = Inbox(max_messages=1_000_000, max_bytes=2**40)
    committed = threading.Semaphore(0)
    messages = [_message(n, committed) for n in range(count // SEGMENT)]
    for message in messages:
        inbox.put(message)
    writer = Writer(database, inbox, publish=lambda *_: True, came_up=lambda _: None)
    thread = threading.Thread(target=writer.run, name="writer")
    started = time.perf_counter()
    thread.start()
    await asyncio.to_thread(lambda: [committed.acquire() for _ in messages])
    elapsed = time.perf_counter() - started
    writer.stop()
    thread.join()
    database.close()
    rate = len(messages) * SEGMENT / elapsed
    return [
        Figure(
            "console ingest, SQLite",
            round(rate),
            "events/s",
            ">= 120000",
            rate >= 120_000,
            f"{BOXES} boxes, segments of {SEGMENT}",
        )
    ]


def _message(number: int, committed: threading.Semaphore) -> Inbound:
    device = f"box-{number % BOXES}"
    now = now_ns()
    stamp = Stamp(now, 1_000_000_000, "eebf0257-c1cc-4e29-bf00-bca2699f6e37", synced=True)
    tails = encode_events(device=device, source="bench", stamp=stamp, events=readings(SEGMENT))
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
