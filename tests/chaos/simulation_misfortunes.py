"""What may befall boxes, broker and console, one misfortune at a time, often several at once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from tests.chaos.simulation_box import Box
from tests.chaos.simulation_console import VirtualConsole
from tests.chaos.simulation_loop import VirtualLoop
from tests.chaos.simulation_net import Broker
from tests.unit.agent.store.boxed import HOUR

from nexus_agent.config import LinkSection

YEAR: Final = 8766 * HOUR


class Misfortunes:
    """Of a run of so many *seconds*. happens: tells the story, for people."""

    def __init__(
        self,
        chance: random.Random,
        broker: Broker,
        console: VirtualConsole,
        boxes: list[Box],
        folder: Path,
        seconds: float,
        happens: Callable[..., None],
    ) -> None:
        self.chance, self.broker, self.console, self.boxes = chance, broker, console, boxes
        self.folder, self.seconds, self.happens = folder, seconds, happens
        self.loop: VirtualLoop = broker.loop
        self.backups: list[Path] = []

    async def befall(self, at: float) -> None:
        await asyncio.sleep(at)
        box = self.chance.choice(self.boxes)
        misfortunes: list[Callable[[Box], Awaitable[None]]] = [
            self._cut_line,
            self._cut_line,
            self._choose_line_anew,
            self._restart_broker,
            self._console_away,
            self._console_refuses,
            self._back_up,
            self._restore,
            self._kill,
            self._kill,
            self._kill_in_commit,
            self._stop,
            self._disk_refuses,
            self._disk_slow,
            self._clock_jumps,
            self._hold,
            self._renew,
        ]
        chosen = self.chance.choice(misfortunes)
        await chosen(box)

    def _while(self) -> float:
        """How long it lasts: seconds mostly, at times a third of the run."""
        if self.chance.random() < 0.6:
            return self.chance.expovariate(1 / 30)
        return self.chance.uniform(0, self.seconds / 3)

    def choose_line(self, box: Box) -> None:
        chance = self.chance
        box.line.latency = chance.choice([0.002, 0.05, 0.8, 5.0])
        box.line.rate = chance.choice([2_000.0, 30_000.0, 1e6])
        box.line.reorders = chance.random() < 0.5

    async def _choose_line_anew(self, box: Box) -> None:
        self.choose_line(box)
        self.happens(box.name, "has another line", box.line.latency, box.line.rate)

    def choose_network(self) -> None:
        self.broker.repeats = self.chance.choice([0.0, 0.05, 0.5])
        self.console.slow = self.chance.choice([0.0, 0.1, 5.0])
        self.console.gathers = self.chance.choice([0.1, 5.0, 30.0])
        self.console.disorder = self.chance.random() < 0.5
        for box in self.boxes:
            box.flash.slow = self.chance.choice([0.0, 0.0, 0.05])

    async def _cut_line(self, box: Box) -> None:
        """Both sides notice at once, or after their keep-alive at the latest."""
        lasts, noticed = self._while(), self.chance.choice([0.0, 1.0, 90.0])
        self.happens(box.name, "is cut off for", lasts)
        box.line.up = False
        client = self.broker.clients.get(box.name)
        await asyncio.sleep(min(noticed, lasts))
        if client is not None:
            client.break_off("the line is dead")
        await asyncio.sleep(max(0.0, lasts - noticed))
        box.line.up = True

    async def _restart_broker(self, _: Box) -> None:
        lasts, forgets = self._while(), self.chance.random() < 0.5
        self.happens("the broker is gone for", lasts, "and forgets" if forgets else "")
        self.broker.die(forgets=forgets)
        await asyncio.sleep(lasts)
        self.broker.up = True
        self.console.rise()

    async def _console_away(self, _: Box) -> None:
        lasts = self._while()
        self.happens("the console is killed and away for", lasts)
        self.console.die()
        await asyncio.sleep(lasts)
        self.console.rise()

    async def _console_refuses(self, _: Box) -> None:
        lasts = self._while()
        self.happens("the console's database fails for", lasts)
        self.console.refuses = True
        await asyncio.sleep(lasts)
        self.console.refuses = False

    async def _back_up(self, _: Box) -> None:
        to = self.folder / f"backup-{len(self.backups)}.db"
        self.happens("the console is backed up")
        self.console.back_up(to)
        self.backups.append(to)

    async def _restore(self, _: Box) -> None:
        if not self.backups:
            return
        self.happens("the console is restored")
        self.console.die()
        self.console.restore(self.chance.choice(self.backups))
        for box in self.boxes:
            box.truth.look_anew(self.console)
        await asyncio.sleep(self._while())
        self.console.rise()

    async def _kill(self, box: Box) -> None:
        await self._kill_with(box, None)

    async def _kill_with(self, box: Box, image: Path | None) -> None:
        lasts = self._while()
        self.happens(box.name, "is killed", "in a commit" if image else "", "and off for", lasts)
        if box.up:
            await box.kill(image)
            await self._start_later(box, lasts)

    async def _kill_in_commit(self, box: Box) -> None:
        """The power goes when the next transaction is written and not committed."""
        gone: asyncio.Future[Path] = self.loop.create_future()

        def go() -> None:
            if not gone.done():
                gone.set_result(box.image())

        box.flash.on_commit = go
        await asyncio.wait([gone], timeout=self.seconds / 4)
        box.flash.on_commit = None
        if gone.done():
            await self._kill_with(box, gone.result())

    async def _stop(self, box: Box) -> None:
        lasts = self._while()
        self.happens(box.name, "is stopped for", lasts)
        if box.up:
            await box.stop()
            await self._start_later(box, lasts)

    async def _start_later(self, box: Box, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.chance.random() < 0.5:
            offset = box.clock.offset
            box.clock = box.new_clock()
            box.clock.offset = offset
        await box.start()

    async def _disk_refuses(self, box: Box) -> None:
        lasts = self._while()
        code = self.chance.choice([sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
        box.flash.odds = self.chance.choice([0.1, 0.5, 1.0])
        self.happens(box.name, "has a disk that refuses", box.flash.odds, "with", code, lasts)
        box.flash.refuses = code
        await asyncio.sleep(lasts)
        box.flash.refuses = None

    async def _disk_slow(self, box: Box) -> None:
        lasts, box.flash.slow = self._while(), self.chance.choice([0.5, 20.0])
        self.happens(box.name, "has a disk as slow as", box.flash.slow, "for", lasts)
        await asyncio.sleep(lasts)
        box.flash.slow = 0.0

    async def _clock_jumps(self, box: Box) -> None:
        box.clock.offset += self.chance.choice([-10 * YEAR, -HOUR, 48 * HOUR, 10 * YEAR])
        box.clock.synced = self.chance.random() < 0.5
        self.happens(box.name, "has another clock", box.clock.offset // HOUR, box.clock.synced)
        await asyncio.sleep(self._while())
        box.clock.offset, box.clock.synced = 0, True

    async def _hold(self, box: Box) -> None:
        lasts = self._while()
        policies: list[dict[str, Any]] = [
            {"metered": True},
            {"quiet_hours": ["22:00-06:00", "12:00-13:30"]},
            {"day_mb": {"total": 0.05}},
        ]
        chosen = self.chance.choice(policies)
        self.happens(box.name, "may send less for", lasts, chosen)
        box.choose_policy(LinkSection.model_validate(chosen))
        await asyncio.sleep(lasts)
        box.choose_policy(LinkSection())

    async def _renew(self, box: Box) -> None:
        if box.up:
            self.happens(box.name, "begins a new epoch")
            await box.renew()
