"""A plugin that emits numbers, one after the other, and notes each that is promised."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from nexus_agent.plugin import NoArgs, Plugin, Progress, Settings, command


class NeighbourSettings(Settings):
    """pause_s: between two numbers."""

    pause_s: float = 0.02


class Neighbour(Plugin[NeighbourSettings]):
    """Goes on, whatever happens beside it."""

    name = "neighbour"
    version = "1.0"
    description = "Counts."
    author = "tests"
    emits: ClassVar[tuple[str, ...]] = ("neighbour.number",)
    settings_model = NeighbourSettings
    live: ClassVar[frozenset[str]] = frozenset({"pause_s"})

    async def run(self) -> None:
        number = await self.context.state.get("number") or 0
        while True:
            number += 1
            await self.context.emit("neighbour.number", number)
            await self.context.state.set("number", number)
            self.context.report(f"{number} promised")
            await self.context.sleep(self.context.settings.pause_s)

    @command()
    async def wait(self, args: NoArgs, progress: Progress) -> str:
        """Take a moment."""
        progress("half way")
        await asyncio.sleep(0.01)
        return "done"
