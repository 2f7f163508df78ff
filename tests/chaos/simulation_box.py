"""A box in virtual time: the agent's own delivery, its load, its disk and its ends."""

from __future__ import annotations

import asyncio
import base64
import random
import shutil
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos.delivery_parts import copy, stored
from tests.chaos.delivery_truth import TYPE, Disk, Truth
from tests.chaos.simulation_loop import Disk as Flash
from tests.chaos.simulation_loop import DiskDatabase
from tests.chaos.simulation_net import START, Broker, Client, Line, Tell
from tests.unit.agent.store.boxed import Hours

from nexus_agent.birth import birth
from nexus_agent.clock import BUILT, Clock
from nexus_agent.config import LinkSection
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Ack, Presence, Segment, Stamp, Stream, Topic
from nexus_agent.store.errors import StoreError
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.lane import WINDOW_BYTES
from nexus_agent.sync.link import Link
from nexus_agent.sync.pace import CAP_BYTES
from nexus_agent.sync.policy import Policy
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic

OPEN_RETRY_S: Final = 2.0
NOISE: Final = 20_000


class VirtualClock(Clock):
    """The loop's time, as one boot sees it. offset: how far its wall clock is off, in ns."""

    def __init__(self, now: Callable[[], float], boot: str) -> None:
        self._now, self._started = now, int(now() * 1e9)
        self.boot, self.offset, self.synced = boot, 0, True
        self._floor = BUILT

    def stamp(self) -> Stamp:
        true = int(self._now() * 1e9)
        mono, wall = true - self._started, START + true + self.offset
        if not self.synced and wall < self._floor:
            return Stamp(self._floor + mono, mono, self.boot, synced=False)
        return Stamp(wall, mono, self.boot, self.synced)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a box is given to do. pause: mean seconds between its plugins' words."""

    quota: int
    pause: float
    burst: float
    """How often so much comes at once that it takes many segments."""
    big: float
    """How often an event is large and does not shrink."""
    keep: Keep
    lifetime: Hours
    interval_s: int
    """Between two births."""


class _Link(Link):
    """The agent's, over a virtual line."""

    def dial_with(self, make: Callable[[], Client]) -> None:
        self._dial = make

    async def _make_client(self) -> Client:  # type: ignore[override]
        client = self._dial()
        self._session = client.will.session
        return client


class _Sender(Sender):
    """The agent's, which is looked at after each acknowledgement."""

    on_acknowledged: Callable[[], None] = staticmethod(lambda: None)

    async def acknowledge(self, ack: Ack) -> bool:
        renewed = await super().acknowledge(ack)
        self.on_acknowledged()
        return renewed


@dataclass(frozen=True, slots=True)
class _Timing:
    presence_interval_s: int
    keepalive_s: int = 60


class _Address:
    url = "virtual"


class Box:
    """One device: what stays of it between its ends, and the life it has now."""

    def __init__(
        self,
        broker: Broker,
        folder: Path,
        name: str,
        chance: random.Random,
        profile: Profile,
        tell: Tell,
    ) -> None:
        self.broker, self.name, self.chance, self.profile = broker, name, chance, profile
        self.loop, self.tell = broker.loop, tell
        self.line = Line()
        self.flash = Flash(broker.loop, chance)
        self.truth, self.disk = Truth(name), Disk()
        self.promised: set[int] = set()
        self.folder = folder
        self.policy = LinkSection()
        self.loaded = True
        self.up = False
        self._boots = self._sessions = self._lives = 0
        self.clock = self.new_clock()
        self._tasks: list[asyncio.Task[Any]] = []
        self.emits: dict[asyncio.Task[None], None] = {}

    def new_clock(self) -> VirtualClock:
        self._boots += 1
        return VirtualClock(self.loop.time, f"{self.name}-boot-{self._boots}")

    # -- its life

    async def start(self) -> None:
        """As the agent starts, however long the disk is away."""
        self.flash.revive()
        while True:
            self.database = DiskDatabase(self.folder, self.profile.quota, self.flash)
            self.outbox = Outbox(self.database, self.name, self.clock)
            self.traffic = Traffic(self.database, self.clock, Policy(self.policy))
            try:
                await self.database.open()
                await self.outbox.open()
                await self.traffic.open()
            except StoreError:
                self.database.drop()
                await asyncio.sleep(OPEN_RETRY_S)
            else:
                break
        self._adopt()
        self.outbox.on_sealed(self._sealed)
        self._connect_parts()
        self.up = True

    def _connect_parts(self) -> None:
        outbox, clock, topic = self.outbox, self.clock, Topic(self.name)
        self.sender = _Sender(outbox, topic, "console", traffic=self.traffic)
        self.sender.on_acknowledged = lambda: self.loop.attempt(self.check)
        timing = _Timing(self.profile.interval_s)
        self.link = _Link(
            _Address(),  # type: ignore[arg-type]
            timing,
            topic,
            clock,
            self.sender,
            lambda session: birth(outbox, clock, session, interval_s=60, plugins={}),
            lambda _: None,
        )
        self.link.dial_with(self._dial)
        outbox.on_trouble(lambda *_: self.link.announce())
        outbox.on_epoch(self.link.announce)
        profile = self.profile
        keeper = Housekeeper(outbox, self.database, clock, profile.keep, profile.lifetime)
        self._sealing = self._spawn(outbox.run(), "outbox")
        self._linked = self._spawn(self.link.run(), "link")
        self._others = [
            self._spawn(keeper.run(), "housekeeping"),
            self._spawn(self.traffic.run(), "traffic"),
            self._spawn(self._work(), "load"),
        ]
        self._tasks = [self._sealing, self._linked, *self._others]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.loop.create_task(work, name=f"{self.name}:{name}")

    def _dial(self) -> Client:
        self._sessions += 1
        will = Presence(online=False, session=f"{self.name}-{self._sessions}")
        return Client(self.broker, self.line, self.name, will)

    def _sealed(self, segment: Segment) -> None:
        self.tell("sealed", self.name, segment.stream, segment.epoch, segment.first, segment.crc)
        self.truth.seal(self.disk, segment)

    def _adopt(self) -> None:
        """What was committed as the power went: nobody was told, and it is kept all the same."""
        for segment in stored(self.folder):
            if not self.truth.knows(segment):
                self._sealed(segment)

    def image(self) -> Path:
        """The state folder as it is on the disk now."""
        self._lives += 1
        to = self.folder.with_name(f"{self.name}-{self._lives}")
        copy(self.folder, to)
        return to

    async def kill(self, image: Path | None = None) -> None:
        """As kill -9 or a power cut ends it. image: what is on the disk then; it is taken now."""
        if not self.up:
            return
        self.up = False
        left = image or self.image()
        self.flash.die()
        client = self.broker.clients.get(self.name)
        if client is not None:
            client.vanish()
        await _end([*self._tasks, *self.emits])
        self.database.drop()
        shutil.rmtree(self.folder)
        self.folder = left

    async def stop(self) -> None:
        """As the agent ends, when it is told to."""
        if not self.up:
            return
        self.up = False
        await _end(self._others)
        self.outbox.close()
        await self._sealing
        await self.outbox.remember()
        await self.link.farewell("stopped")
        await _end([self._linked, *self.emits])
        await self.traffic.flush()
        await self.database.close()

    def choose_policy(self, policy: LinkSection) -> None:
        """What `[link]` says from now on."""
        self.policy = policy
        if self.up:
            self.traffic.policy = Policy(policy)

    # -- its load

    async def _work(self) -> None:
        chance, profile = self.chance, self.profile
        while True:
            await asyncio.sleep(chance.expovariate(1 / profile.pause))
            if self.loaded:
                count = 200 if chance.random() < profile.burst else chance.randint(1, 4)
                stream = chance.choice(list(Stream))
                self._begin(self._emit(stream, count))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What ends with the box, if it has not ended before."""
        task = self._spawn(work, "emit")
        self.emits[task] = None
        task.add_done_callback(lambda one: self.emits.pop(one, None))
        return task

    async def renew(self) -> None:
        """Begin a new epoch, unless the box ends before."""

        async def attempt() -> None:
            with suppress(StoreError):
                await self.outbox.renew("a test")

        await asyncio.wait([self._begin(attempt())])

    async def _emit(self, stream: Stream, count: int) -> None:
        chance = self.chance
        big = chance.random() < self.profile.big
        made = [self._make(NOISE if big and n < 4 else 0) for n in range(count)]
        self.tell("emit", self.name, stream, made[0], count)
        values = [(TYPE, self.truth.payloads[event]) for event in made]
        with suppress(EmitError):
            if chance.random() < 0.2:
                self.outbox.hand_over_many("test", values, stream)
            else:
                await self.outbox.emit("test", values, stream)
                self.promised.update(made)

    def _make(self, size: int) -> int:
        noise = random.Random(len(self.truth.payloads)).randbytes(size)
        return self.truth.make(base64.b85encode(noise).decode())

    # -- what must hold

    def check(self) -> None:
        """Nothing is released that the console has not settled; what is in memory has bounds."""
        at = self.outbox.positions
        for event in self.truth.unsettled():
            stream, epoch, seq = self.truth.numbers[event]
            assert at.reached(stream, epoch) < seq, f"{self.name}: {event} was released"
        for lane in self.sender._lanes.values():
            size = sum(message.size for message in lane.under_way)
            assert size <= WINDOW_BYTES + CAP_BYTES, "too much under way"
        assert self.database.space.used() <= self.profile.quota, "beyond its quota"

    async def waits(self) -> str:
        """What is not delivered yet, for people; empty if all is."""
        try:
            status = await self.outbox.status()
            losses = await self.outbox.losses(1000)
        except StoreError as error:
            return str(error)
        if self.database.damage is not None:
            return str(self.database.damage)
        waiting = [f"{s.pending_events} {s.stream}" for s in status if s.pending_segments]
        if untold := [loss for loss, told in losses if not told]:
            waiting.append(f"{len(untold)} untold losses")
        return ", ".join(waiting)


async def _end(tasks: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
