"""One seeded run of the whole path: boxes, broker and console live through hours of misfortune.

Then all is well again, and within bounded time everything must have arrived or be shown as lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from pathlib import Path
from typing import Any, Final

from tests.chaos.delivery_parts import copy
from tests.chaos.delivery_truth import Number
from tests.chaos.simulation_box import Box, Profile
from tests.chaos.simulation_console import VirtualConsole
from tests.chaos.simulation_loop import VirtualLoop
from tests.chaos.simulation_misfortunes import Misfortunes
from tests.chaos.simulation_net import Broker
from tests.unit.agent.store.boxed import Hours

from nexus_agent.protocol import Stream
from nexus_agent.store import housekeeping
from nexus_agent.store.housekeeping import Keep

HEALED_S: Final = 1800.0
"""After all is well again, everything must have come within this time."""
IDLE_S: Final = 600.0
TICK_TURNS: Final = 8
OTHER_TURNS: Final = 1
"""Turns of the loop that an idle box may take with each look of its housekeeping, and a second."""
QUOTAS: Final = (2_000_000, 64_000_000)


class World:
    """Everything that one seed decides."""

    def __init__(self, chance: random.Random, folder: Path, box: Path, console: Path) -> None:
        self.chance, self.folder = chance, folder
        self.loop = VirtualLoop()
        self._digest = hashlib.sha256()
        self.story: list[str] = []
        """What has befallen them, for people."""
        folder.mkdir()
        shutil.copy(console, folder / "console.db")
        self.broker = Broker(self.loop, chance, self.tell)
        self.console = VirtualConsole(folder / "console.db", self.broker, self._turned)
        self.hours = chance.choice([0.2, 1, 3, 6, 24, 72])
        self.boxes = [self._make_box(box, n) for n in range(chance.choice([1, 1, 1, 2]))]
        self.misfortunes = Misfortunes(
            chance, self.broker, self.console, self.boxes, folder, self.seconds, self.happens
        )
        self.healed = self.idle = self._healed_at = 0.0
        self.duplicates = 0

    def _make_box(self, template: Path, number: int) -> Box:
        name = f"bay-{number + 1}"
        folder = self.folder / f"{name}-0"
        copy(template, folder)
        chance = self.chance
        seconds = self.hours * 3600
        profile = Profile(
            quota=chance.choice(QUOTAS),
            pause=seconds / chance.choice([5, 15, 40]),
            burst=chance.choice([0.0, 0.0, 0.1]),
            big=chance.choice([0.0, 0.1, 0.5]),
            keep=Keep(chance.choice([0.0, 1.0, 72.0]), chance.choice([0.0, 0.5, 64.0])),
            lifetime=Hours(log=chance.choice([0.0, self.hours / 10]), telemetry=0.0),
            interval_s=max(60, int(seconds / 12)),
        )
        return Box(self.broker, folder, name, chance, profile, self.tell)

    @property
    def seconds(self) -> float:
        return self.hours * 3600

    def tell(self, *what: object) -> None:
        """Note it in the trace of the run."""
        self._digest.update(f"{self.loop.now!r} {what}\n".encode())

    def happens(self, *what: object) -> None:
        self.tell(*what)
        self.story.append(f"{self.loop.now - 1000:10.1f} s  {' '.join(map(str, what))}")

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()[:16]

    # -- the run

    def run(self) -> None:
        try:
            self.loop.run(self._live())
        finally:
            self._close()

    def _close(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run(_gathered(tasks))
        for box in self.boxes:
            box.database.drop()
        self.loop.close()
        self.console.close()
        shutil.rmtree(self.folder)

    async def _live(self) -> None:
        self.loop.end = self.loop.now + 3 * self.seconds + HEALED_S + IDLE_S
        for box in self.boxes:
            self.misfortunes.choose_line(box)
            await box.start()
        self.misfortunes.choose_network()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(self.seconds), name="watch")
            for at in self._moments():
                group.create_task(self.misfortunes.befall(at), name="misfortune")
        await self._heal()
        await self._settle()
        self._check_complete()
        await self._idle()

    def _moments(self) -> list[float]:
        """When misfortune comes: at times all of it within a few minutes."""
        chance = self.chance
        start, span = 0.0, self.seconds
        if chance.random() < 0.4:
            start, span = chance.uniform(0, self.seconds / 2), min(600.0, self.seconds / 4)
        return [chance.uniform(start, start + span) for _ in range(chance.randint(4, 20))]

    async def _watch(self, seconds: float) -> None:
        end = self.loop.now + seconds
        while self.loop.now < end:
            await asyncio.sleep(seconds / 50)
            self._check()

    def _turned(self) -> None:
        """The console has committed something."""
        self.tell("committed")
        for box in self.boxes:
            box.truth.look(self.console)
            if unsettled := box.truth.unsettled():
                spans = self.console.lost(box.name)
                box.truth.settled |= {
                    event for event in unsettled if is_within(box.truth.numbers[event], spans)
                }

    def _check(self) -> None:
        for box in self.boxes:
            if box.up:
                box.check()

    # -- and after it

    async def _heal(self) -> None:
        self.happens("all is well")
        self.broker.repeats, self.console.disorder = 0.0, False
        self.console.slow = self.console.gathers = 0.1
        for box in self.boxes:
            box.loaded = False
            box.flash.slow = 0.0
            box.line.latency, box.line.rate = 0.05, 1e6
        self._healed_at = self.loop.now
        # What is still in an emit comes to its end, one way or the other.
        await asyncio.gather(*(task for box in self.boxes for task in box.emits))

    async def _settle(self) -> None:
        while waits := await self._waiting():
            assert self.loop.now - self._healed_at < HEALED_S, f"never came: {waits}"
            await asyncio.sleep(5.0)
            self._check()
        self.healed = self.loop.now - self._healed_at
        self.tell("settled", self.healed)

    async def _waiting(self) -> str:
        if self.broker.queue:
            return f"{len(self.broker.queue)} messages at the broker"
        for box in self.boxes:
            if waits := await box.waits():
                return f"{box.name}: {waits}"
            if lacks := self._lacks(box):
                return f"{box.name}: {lacks}"
        return ""

    def _lacks(self, box: Box) -> str:
        """Where the console's marks are below what the box has numbered."""
        at = box.outbox.positions
        marks = {(s.epoch, s.stream): s.high_water for s in self.console.lanes(box.name)}
        behind = [
            f"{stream} {epoch} is at {marks.get((epoch, stream), 0)} of {at.limit(stream, epoch)}"
            for epoch in (*at.final, at.epoch)
            for stream in Stream
            if marks.get((epoch, stream), 0) < at.limit(stream, epoch)
        ]
        return ", ".join(behind)

    def _check_complete(self) -> None:
        self._check()
        for box in self.boxes:
            lanes = self.console.lanes(box.name)
            box.truth.look_anew(self.console)
            box.truth.check_complete(lanes, lambda _: False)
            self.duplicates += sum(lane.duplicates for lane in lanes)
            unknown = box.promised - box.truth.numbers.keys() - set(box.truth.visible)
            assert not unknown, f"{box.name}: {sorted(unknown)} were promised and are nowhere"

    async def _idle(self) -> None:
        turns = self.loop.turns
        await asyncio.sleep(IDLE_S)
        self.idle = (self.loop.turns - turns) / IDLE_S
        most = len(self.boxes) * (TICK_TURNS / housekeeping.TICK_S + OTHER_TURNS)
        assert self.idle <= most, f"{self.idle:.1f} turns a second, idle"


async def _gathered(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def is_within(number: Number, spans: list[tuple[Stream, int, int, int]]) -> bool:
    stream, epoch, seq = number
    return any((stream, epoch) == span[:2] and span[2] <= seq <= span[3] for span in spans)
