"""The sender over a line that takes everything at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from paho.mqtt.properties import Properties
from tests.unit.agent.store.boxed import SetClock, Store

from nexus_agent.protocol import Ack, Stream, Topic, open_segment, unpack
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.lane import WINDOW_BYTES
from nexus_agent.sync.sender import Sender

ALERT_BYTES = 50_000


class Line:
    """Keeps the types of the alerts that it was given."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.came = asyncio.Event()

    async def publish_checked(
        self, topic: str, payload: bytes, *, properties: Properties | None = None
    ) -> None:
        assert properties is not None
        parts = unpack(Stream.ALERT, properties.UserProperty, payload)  # type: ignore[attr-defined]
        self.types += [event.type for segment in parts for event in open_segment(segment)]
        self.came.set()

    async def until(self, kind: str, count: int) -> None:
        while self.types.count(kind) < count:
            self.came.clear()
            await self.came.wait()


async def test_a_lost_alert_is_told_of_past_a_full_window(state_dir: Path) -> None:
    window = WINDOW_BYTES // ALERT_BYTES
    database, clock = Database(state_dir), SetClock()
    await database.open()
    outbox = Outbox(database, "box-1", clock)
    await outbox.open()
    store, line = Store(database, outbox, clock), Line()
    sender = Sender(outbox, Topic("box-1"), "console")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sealing = group.create_task(outbox.run(), name="outbox")
        for number in range(window + 10):
            await store.fill(Stream.ALERT, ALERT_BYTES, seed=number)
        await database.run(lambda c: c.execute("DELETE FROM segment_alert WHERE last = 1"))
        sending = group.create_task(sender.run(line, "now"), name="sender")
        await line.until("test.noise", window - 2)
        await sender.acknowledge(Ack(epoch=1, stream=Stream.ALERT, seq=0, want=[(1, 1)]))
        await line.until("delivery.loss", 1)
        sending.cancel()
        outbox.close()
        await sealing
    await database.close()


async def test_a_box_that_is_taken_for_another_introduces_itself_now_and_then(
    state_dir: Path,
) -> None:
    database, clock = Database(state_dir), SetClock()
    await database.open()
    outbox = Outbox(database, "box-1", clock)
    await outbox.open()
    sender = Sender(outbox, Topic("box-1"), "console")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sending = group.create_task(sender.run(Line(), "now"), name="sender")
        await asyncio.sleep(0)
        other = Ack(epoch=1, stream=Stream.EVENT, seq=0, session="before")
        own = Ack(epoch=1, stream=Stream.EVENT, seq=0, session="now")
        said = [await sender.acknowledge(ack) for ack in (own, other, other, own)]
        assert said == [False, True, False, False]
        sending.cancel()
    await database.close()


async def test_a_console_that_has_less_than_before_is_told_again_who_this_is(
    state_dir: Path,
) -> None:
    """A console restored from a backup: from the birth it learns what to ask for."""
    database, clock = Database(state_dir), SetClock()
    await database.open()
    outbox = Outbox(database, "box-1", clock)
    await outbox.open()
    store = Store(database, outbox, clock)
    sender = Sender(outbox, Topic("box-1"), "console")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sealing = group.create_task(outbox.run(), name="outbox")
        await store.emit(1, 2, 3, stream=Stream.ALERT)
        sending = group.create_task(sender.run(Line(), "now"), name="sender")
        await store.acknowledge(3, Stream.ALERT)
        acks = [
            Ack(epoch=1, stream=Stream.ALERT, seq=3, session="now"),
            Ack(epoch=1, stream=Stream.ALERT, seq=1, session="now", want=[(2, 3)]),
            Ack(epoch=1, stream=Stream.ALERT, seq=1, session="now"),
            Ack(epoch=1, stream=Stream.ALERT, seq=1, session="now"),
        ]
        await asyncio.sleep(0)
        assert [await sender.acknowledge(ack) for ack in acks] == [False, False, True, False]
        sending.cancel()
        outbox.close()
        await sealing
    await database.close()
