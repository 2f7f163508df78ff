"""A plugin of the agent that hands over what the bench orders. `emit_many` returned: accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import ClassVar, Final

from nexus_agent.plugin import Plugin, Settings, catalogue
from peers.producers.feed import Load, Order, port

_LANES: Final = 4
"""Plugins that emit at the same time."""


class Reading(catalogue.vehicle.TelemetryPid):
    """A live value with the number by which the bench knows it again."""

    type: ClassVar[str] = "bench.reading"
    n: int


class FeedPlugin(Plugin[Settings]):
    """The bench's own plugin; see `feed`."""

    name = "feed"
    version = "1.0"
    description = "Hands over what the bench orders."
    author = "Nexus Core"
    emits = (Reading,)

    async def run(self) -> None:
        load = Load()
        reader, writer = await asyncio.open_connection("127.0.0.1", port())
        while line := await reader.readline():
            order = Order.parse(line)
            begin = time.monotonic()
            writer.write(f"start {begin}\n".encode())
            async with asyncio.TaskGroup() as group:
                if order.rate:
                    for due, first, count in order.batches():
                        await asyncio.sleep(begin + due - time.monotonic())
                        one = self._hand_over(load, iter([(due, first, count)]), writer)
                        group.create_task(one, name=f"feed:{first}")
                else:
                    batches = order.batches()
                    for lane in range(_LANES):
                        task = self._hand_over(load, batches, writer)
                        group.create_task(task, name=f"feed:{lane}")

    async def _hand_over(
        self,
        load: Load,
        batches: Iterator[tuple[float, int, int]],
        writer: asyncio.StreamWriter,
    ) -> None:
        for _, first, count in batches:
            events = [(Reading.type, data) for _, data in load.events(first, count)]
            await self.context.emit_many(events)
            writer.write(f"{first} {first + count - 1}\n".encode())
