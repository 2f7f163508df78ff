"""A load of numbered events, each of which is noted once it is promised."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus_agent.plugin import EmitError, Plugin, Settings, Stream

TYPE: Final = "load.number"


@dataclass(frozen=True, slots=True)
class Lane:
    """Events that are given out one call after the other. most: events in one call.

    share: of all events.
    """

    stream: Stream
    most: int
    share: float


LANES: Final = (
    Lane(Stream.ALERT, 1, 0.05),
    Lane(Stream.ALERT, 5, 0.05),
    Lane(Stream.EVENT, 1, 0.15),
    Lane(Stream.EVENT, 1, 0.15),
    Lane(Stream.EVENT, 40, 0.2),
    Lane(Stream.TELEMETRY, 1, 0.02),
    Lane(Stream.TELEMETRY, 200, 0.3),
    Lane(Stream.LOG, 1, 0.01),
    Lane(Stream.LOG, 30, 0.07),
)


class NumbersSettings(Settings):
    """What `[plugins.numbers]` takes. rate: events a second, of all lanes together."""

    notes: Path
    """A line for each call that has returned: life, lane, first number, last number."""
    quiet: Path
    """While this file is there nothing is emitted."""
    rate: float
    seed: int


class Numbers(Plugin[NumbersSettings]):
    """Numbers anew in each life, which its start names: ns of the monotonic clock."""

    name = "numbers"
    version = "1"
    description = "For tests."
    author = "tests"
    emits = (TYPE,)
    settings_model = NumbersSettings

    async def run(self) -> None:
        life = time.monotonic_ns()
        with self.context.settings.notes.open("ab", buffering=0) as notes:
            async with asyncio.TaskGroup() as group:
                for number in range(len(LANES)):
                    group.create_task(self._emit(life, number, notes.fileno()), name=f"{number}")
            self.context.report("quiet")
            await asyncio.Event().wait()

    async def _emit(self, life: int, number: int, notes: int) -> None:
        settings, lane = self.context.settings, LANES[number]
        dice = random.Random(f"{settings.seed}:{life}:{number}")
        due, last = time.monotonic(), 0
        while not settings.quiet.exists():
            first, last = last + 1, last + dice.randint(1, lane.most)
            events = [(TYPE, _reading(life, number, each, dice)) for each in range(first, last + 1)]
            try:
                if lane.most == 1:
                    await self.context.emit(*events[0], stream=lane.stream)
                else:
                    await self.context.emit_many(events, stream=lane.stream)
            except EmitError:
                continue  # not promised, and so not noted
            os.write(notes, b"%d %d %d %d\n" % (life, number, first, last))
            # What was late is made up for, but not a whole outage.
            due = max(due, time.monotonic() - 1) + len(events) / lane.share / settings.rate
            await asyncio.sleep(max(0, due - time.monotonic()))


def _reading(life: int, lane: int, number: int, dice: random.Random) -> dict[str, Any]:
    """As long and as changeable as a live value."""
    return {
        "number": [life, lane, number],
        "ecu": "7E8",
        "name": dice.choice(("engine_speed", "vehicle_speed", "coolant_temperature")),
        "value": round(dice.uniform(0, 6000), 2),
        "unit": "rpm",
        "quality": "ok",
    }
