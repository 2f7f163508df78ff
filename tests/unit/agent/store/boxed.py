"""A box's store as its tests use it: a real database, a clock to set, events that do not shrink."""

from __future__ import annotations

import base64
import random
from typing import Any

from nexus_agent.clock import BUILT, Clock
from nexus_agent.protocol import MAX_SEQUENCE, Ack, Event, Stamp, Stream, open_segment
from nexus_agent.store.database import Database
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id

HOUR = 3_600_000_000_000


class SetClock(Clock):
    """A clock whose wall time and synchronisation a test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = BUILT + 1000 * HOUR
        self.synced = True

    def stamp(self) -> Stamp:
        return Stamp(self.wall, super().stamp().mono, self.boot, self.synced)


class Hours:
    """A time to live by stream."""

    def __init__(self, **hours: float) -> None:
        self._hours = hours

    def of(self, stream: Stream) -> float:
        return self._hours.get(stream, 0.0)


class Store:
    """What is open at the moment."""

    def __init__(self, database: Database, outbox: Outbox, clock: SetClock) -> None:
        self.database = database
        self.outbox = outbox
        self.clock = clock

    async def emit(self, *values: Any, stream: Stream = Stream.EVENT) -> None:
        for value in values:
            await self.outbox.emit("test", [("test.value", value)], stream)

    async def fill(self, stream: Stream, size: int, seed: int = 1) -> None:
        """One segment of about *size* bytes that do not compress."""
        noise = base64.b85encode(random.Random(seed).randbytes(size)).decode()
        await self.outbox.emit("test", [("test.noise", noise)], stream)

    async def events(self, stream: Stream = Stream.EVENT, epoch: int = 1) -> list[Event]:
        """What is stored, delivered or not."""
        found = await self.outbox.held(stream, epoch, 1, MAX_SEQUENCE, 100_000)
        return [event for segment in found for event in open_segment(segment)]

    async def waiting(self, stream: Stream = Stream.EVENT) -> list[Event]:
        """What would be sent, epoch after epoch."""
        found: list[Event] = []
        edge = 0
        while part := await self.outbox.after(stream, edge, 1000):
            found += [event for segment in part for event in open_segment(segment)]
            edge = part[-1].epoch << 44 | part[-1].last
        return found

    async def acknowledge(self, seq: int, stream: Stream = Stream.EVENT, epoch: int = 1) -> None:
        self.outbox.sent(stream, row_id(epoch, seq))
        await self.outbox.acknowledge(Ack(epoch=epoch, stream=stream, seq=seq))

    async def losses(self) -> list[tuple[str, int, int, int, str]]:
        """The ledger, oldest first: stream, epoch, first, last, cause."""
        return [
            (str(loss.stream), loss.epoch, loss.first, loss.last, loss.cause)
            for loss, _ in reversed(await self.outbox.losses(1000))
        ]

    async def told(self) -> list[dict[str, Any]]:
        """Data of the `delivery.loss` events."""
        await self.outbox.report_losses()
        found = await self.events(Stream.ALERT, self.outbox.epoch)
        return [event.data for event in found if event.type == "delivery.loss"]

    async def tidy(
        self, *, hours: float = 1e6, megabytes: float = 1e6, ttl: Hours | None = None
    ) -> None:
        keep = Keep(hours, megabytes)
        await Housekeeper(self.outbox, self.database, self.clock, keep, ttl or Hours()).tidy()
