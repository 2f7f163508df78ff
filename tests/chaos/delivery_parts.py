"""The real parts of delivery, a box and a console, over a network and a time that a test moves."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paho.mqtt.properties import Properties
from sqlalchemy import select
from tests.chaos.delivery_loop import BoxDatabase, Loop
from tests.unit.agent.store.boxed import HOUR, Hours

from nexus_agent.birth import birth
from nexus_agent.clock import BUILT, Clock
from nexus_agent.protocol import Ack, Presence, ProtocolError, Segment, Stamp, Stream, Topic
from nexus_agent.store import segments
from nexus_agent.store.database import FILE_NAME, Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.sender import Sender
from nexus_console.blocks import with_lines
from nexus_console.db.engine import Database as ConsoleDatabase
from nexus_console.db.models import STREAMS, devices, events
from nexus_console.ingest import Inbox, Writer
from nexus_console.intake import Inbound, Intake, Outcome
from nexus_console.standing import LaneState, lane_states

DEVICE: Final = "bay-1"
DAMAGED_WITH: Final = random.Random(7).randbytes(4096)


class BoxClock(Clock):
    """A clock whose wall time, monotonic time and synchronisation a test sets."""

    def __init__(self, boot: str) -> None:
        super().__init__()
        self.boot = boot
        self.wall = BUILT + 100_000 * HOUR
        self.mono = 1_000_000_000
        self.synced = True

    def stamp(self) -> Stamp:
        self.wall += 1_000_000
        self.mono += 1_000_000
        return Stamp(self.wall, self.mono, self.boot, self.synced)


@dataclass(slots=True)
class Network:
    """What is under way between the box and the console, and what the broker keeps for ever."""

    up: list[Inbound] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)
    retained: Inbound | None = None
    received: int = BUILT

    def send_up(
        self, topic: str, payload: bytes, user: list[tuple[str, str]], *, retain: bool
    ) -> None:
        self.received += 1_000_000
        message = Inbound(topic, payload, user, False, self.received, lambda: None)
        self.up.append(message)
        if retain:
            self.retained = Inbound(topic, payload, user, True, self.received, lambda: None)

    def send_down(self, _topic: str, payload: bytes) -> bool:
        self.down.append(payload)
        return True

    async def publish_checked(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        user = [] if properties is None else list(properties.UserProperty)  # type: ignore[attr-defined]
        self.send_up(topic, payload, user, retain=retain)

    def forget(self) -> None:
        self.up.clear()
        self.down.clear()
        self.retained = None


class Box:
    """One agent's delivery, from `emit` to its side of the network, on the state in *folder*."""

    def __init__(self, loop: Loop, folder: Path, network: Network, quota: int) -> None:
        self.loop, self.folder, self.network, self.quota = loop, folder, network, quota
        self.on_sealed: Callable[[Segment], None] = lambda _: None
        self._sending: asyncio.Task[None] | None = None
        self._session = ""

    async def start(self, clock: BoxClock) -> None:
        self.clock = clock
        self.database = BoxDatabase(self.folder, self.quota)
        await self.database.open()
        self.outbox = Outbox(self.database, DEVICE, clock, deadline_s=0.0)
        self.outbox.on_sealed(self._tell)
        await self.outbox.open()
        self._sealing = self.loop.create_task(self.outbox.run(), name="outbox")
        self.sender = Sender(self.outbox, Topic(DEVICE), "console")

    def _tell(self, segment: Segment) -> None:
        self.on_sealed(segment)

    async def stop(self) -> None:
        """As the agent ends, when it is told to."""
        await self.disconnect()
        self.outbox.close()
        await self._sealing
        await self.outbox.remember()
        await self.database.close()

    async def kill(self) -> None:
        """As kill -9 or a power cut ends it: the folder is as it was on the disk at that moment."""
        await self.disconnect()
        await self.loop.quiet()
        left = self.folder.with_name(f"{self.folder.name}.left")
        copy(self.folder, left)
        self._sealing.cancel()
        with suppress(asyncio.CancelledError):
            await self._sealing
        await self.database.close()
        shutil.rmtree(self.folder)
        left.rename(self.folder)

    # -- the line

    @property
    def connected(self) -> bool:
        if self._sending is not None and self._sending.done():
            self._lost()
        return self._sending is not None

    def _lost(self) -> None:
        """The session has ended by an error that the link lives with."""
        sending, self._sending = self._sending, None
        assert sending is not None
        error = sending.exception()
        if isinstance(error, ExceptionGroup):
            _, error = error.split(StoreError)
        if error is not None and not isinstance(error, StoreError):
            raise error

    async def connect(self, session: str) -> None:
        """A new session: the birth, and whatever waits behind it."""
        await self.disconnect()
        self._session = session
        if await self._announce():
            self._sending = self.loop.create_task(
                self.sender.run(self.network, session), name="sender"
            )
            await self.loop.quiet()

    async def disconnect(self) -> None:
        if self.connected and self._sending is not None:
            self._sending.cancel()
            with suppress(asyncio.CancelledError):
                await self._sending
            self._sending = None
            will = Presence(online=False, session=self._session)
            self.network.send_up(Topic(DEVICE).presence, will.encode(), [], retain=True)

    async def _announce(self) -> bool:
        try:
            told = await birth(
                self.outbox, self.clock, self._session, interval_s=60, plugins={"host": "running"}
            )
        except StoreError:
            return False
        self.network.send_up(Topic(DEVICE).presence, told.encode(), [], retain=True)
        return True

    async def take_ack(self, payload: bytes) -> None:
        """As the link takes it."""
        with suppress(ProtocolError, StoreError):
            if await self.sender.acknowledge(Ack.decode(payload)):
                await self._announce()
        await self.loop.quiet()

    # -- what it does on the side

    async def tend(self) -> None:
        """What the housekeeper does every few seconds."""
        with suppress(StoreError):
            await self.outbox.heal()
            await self.outbox.save()
            await self.outbox.report_losses()
        await self.loop.quiet()

    async def inspect(self) -> None:
        """Read everything, so that damage is found, and mend it."""
        for stream in Stream:
            with suppress(StoreError):
                await self.database.read(segments.WITHIN[stream], (0, 2**62, -1))
        await self.tend()

    async def tidy(self, keep: Keep, lifetime: Hours) -> None:
        keeper = Housekeeper(self.outbox, self.database, self.clock, keep, lifetime)
        with suppress(StoreError):
            await keeper.tidy()
        await self.loop.quiet()

    def on_disk(self) -> list[Segment]:
        """Every segment of its database that SQLite can read, delivered or not."""
        return list(stored(self.folder))


def copy(folder: Path, to: Path) -> None:
    """A box's state folder as it is on the disk; SQLite makes the index of the log anew."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm"))


def stored(folder: Path) -> Iterable[Segment]:
    """The segments in a state folder, as far as they can be read."""
    connection = sqlite3.connect(f"file:{folder / FILE_NAME}?mode=ro", uri=True)
    try:
        for stream in Stream:
            with suppress(sqlite3.Error):
                for row in connection.execute(segments.WITHIN[stream], (0, 2**62, -1)):
                    yield segments.from_row(stream, row)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Shown:
    """An event as the console has it."""

    stream: Stream
    epoch: int
    seq: int
    type: str
    line: str


class _CrashError(Exception):
    """The console's process ends here."""


class Console:
    """The console's writer on a real database, one transaction after another."""

    def __init__(self, path: Path, network: Network) -> None:
        self.path, self.network = path, network
        self.open()

    def open(self) -> None:
        self.database = ConsoleDatabase(f"sqlite:///{self.path}")
        self.writer = Writer(
            self.database, Inbox(), publish=self.network.send_down, came_up=lambda _: None
        )

    def close(self) -> None:
        self.database.close()

    def take(self, batch: Sequence[Inbound]) -> Outcome:
        """One turn of the writer: commit, then acknowledge."""
        outcome = self.writer._write_each_or_all(list(batch))
        for mark in outcome.marks:
            self.writer._acknowledge(mark)
        return outcome

    def crash(self, batch: Sequence[Inbound], *, committed: bool) -> None:
        """One turn that ends before the commit, or right behind it; nobody hears of it."""
        with suppress(_CrashError), self.database.write() as connection:
            intake = Intake(connection)
            for message in batch:
                intake.take(message)
            intake.finish()
            if not committed:
                raise _CrashError

    def shown(self, after: int = 0, device: str = DEVICE) -> list[tuple[int, Shown]]:
        """The events of *device* behind position *after*, each with its position."""
        statement = (
            select(events)
            .join(devices, devices.c.id == events.c.device_id)
            .where(events.c.position > after, devices.c.name == device)
            .order_by(events.c.position)
        )
        with self.database.read() as connection:
            return [
                (row.position, Shown(STREAMS[row.stream], row.epoch, row.seq, row.type, row.line))
                for row in with_lines(connection, connection.execute(statement).all())
            ]

    def lanes(self, device: str = DEVICE) -> list[LaneState]:
        with self.database.read() as connection:
            found = connection.execute(
                select(devices.c.id).where(devices.c.name == device)
            ).scalar_one_or_none()
            return [] if found is None else lane_states(connection, found)

    def back_up(self, to: Path) -> None:
        self.close()
        shutil.copy(self.path, to)
        self.open()

    def restore(self, backup: Path) -> None:
        self.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.copy(backup, self.path)
        self.open()


def memory() -> str | None:
    """A folder in memory where there is one, for what is not to outlive power."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def templates(folder: Path) -> tuple[Path, Path]:
    """A state folder and a console database with their schemas and nothing in them."""
    box, console = folder / "box", folder / "console.db"

    async def make() -> None:
        database = Database(box)
        await database.open()
        await database.close()

    asyncio.run(make())
    database = ConsoleDatabase(f"sqlite:///{console}")
    database.prepare()
    database.close()
    return box, console
