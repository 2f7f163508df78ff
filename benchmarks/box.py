"""One agent's outbox, sender and link. As a process: `python box.py URL CA FOLDER COUNT` emits
COUNT events and prints [seconds, CPU seconds] from the first `emit` to the last release.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop
from figure import readings

from nexus_agent import logs
from nexus_agent.broker import BrokerAddress
from nexus_agent.clock import Clock
from nexus_agent.config import BrokerSection
from nexus_agent.protocol import Presence, Stream, Topic
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.link import Link
from nexus_agent.sync.sender import Sender

DEVICE: Final = "bench"
BATCH: Final = 500


@asynccontextmanager
async def box(
    folder: Path, address: BrokerAddress | None, clock: Clock | None = None
) -> AsyncIterator[Outbox]:
    """Outbox, sender and link of one agent; without an address it stays offline."""
    clock, topic, database = clock or Clock(), Topic(DEVICE), Database(folder)
    await database.open()
    outbox = Outbox(database, DEVICE, clock)
    await outbox.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="outbox")
        link = None
        if address is not None:
            section = BrokerSection(url=address.url, ca=address.ca)

            async def birth(session: str) -> Presence:
                return Presence(online=True, session=session, epoch=outbox.epoch)

            sender = Sender(outbox, topic, "console")
            line = Link(section, section, topic, clock, sender, birth, lambda _: None)
            link = group.create_task(line.run(), name="link")
        yield outbox
        if link is not None:
            link.cancel()
        outbox.close()
    await database.close()


async def _emit(outbox: Outbox, events: list[tuple[str, object]]) -> None:
    for start in range(0, len(events), BATCH):
        await outbox.emit("bench", events[start : start + BATCH], Stream.TELEMETRY)


async def main() -> None:
    address = BrokerAddress(url=sys.argv[1], ca=Path(sys.argv[2]))
    events = readings(int(sys.argv[4]))
    async with box(Path(sys.argv[3]), address) as outbox:
        cpu, started = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for lane in range(4):
                group.create_task(_emit(outbox, events[lane::4]), name=f"lane:{lane}")
        async with asyncio.timeout(300):
            while outbox.position(Stream.TELEMETRY)[0] < len(events):
                await asyncio.sleep(0.005)
        print(json.dumps([time.perf_counter() - started, time.process_time() - cpu]))


if __name__ == "__main__":
    logs.configure(logs.LogSettings(level="warning"))
    uvloop.run(main())
