"""One CAN channel: keeps it open, and tells its signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from nexus_agent.plugin import Context, FatalError
from nexus_plugins.can_signals.directory import Directory
from nexus_plugins.can_signals.feed import TICK_S, Counts, Feed
from nexus_plugins.can_signals.settings import CanSignalsSettings
from nexus_plugins.canbus.keeper import Keeper

Report = Callable[[str, str], None]
"""Given what it is about, `state` or `figures`, and a few words for people."""


class Channel:
    """The channel *name* of the settings, whose messages are in the directory."""

    def __init__(
        self,
        name: str,
        directory: Directory,
        context: Context[CanSignalsSettings],
        report: Report,
    ) -> None:
        self._feed = Feed(name, directory, context, partial(report, "figures"))
        self._keeper = Keeper(
            name,
            context.settings.channels[name],
            context,
            self._feed.frames.take,
            report=partial(report, "state"),
            longest_s=context.settings.reconnect_max_s,
            silent_s=context.settings.absent_after_s,
        )
        self._name = name

    async def run(self) -> None:
        """Does not return. Raises FatalError where the channel cannot be opened on this box."""
        failed: FatalError | None = None
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(), name=f"can_signals:{self._name}:tell")
            try:
                await self._keeper.run()
            except FatalError as error:
                failed = error
            finally:
                telling.cancel()
        if failed is not None:
            raise failed

    async def _tell(self) -> None:
        loop, pump = asyncio.get_running_loop(), self._keeper.pump
        self._feed.begin(loop.time())
        while True:
            await asyncio.sleep(TICK_S)
            await self._feed.tick(loop.time(), Counts(pump.frames, pump.errors, pump.dropped))
