"""The plugin: its channels and replays, each on its own."""

from __future__ import annotations

import asyncio
from functools import partial

from nexus_agent.plugin import Context, FatalError, Plugin
from nexus_plugins.can_signals.channel import Channel
from nexus_plugins.can_signals.loading import load
from nexus_plugins.can_signals.player import Player
from nexus_plugins.can_signals.settings import CanSignalsSettings


class CanSignalsPlugin(Plugin[CanSignalsSettings]):
    """Tells the signals of CAN channels and of logs of them; see README.md."""

    name = "can_signals"
    version = "1.0.0"
    description = "Tells the signals on CAN channels and in logs of them, as DBC files name them."
    author = "Nexus Core"
    emits = ("adapter.state", "telemetry.signal", "can.traffic")
    devices = ("channel", "file")
    settings_model = CanSignalsSettings

    def __init__(self, context: Context[CanSignalsSettings]) -> None:
        super().__init__(context)
        self._loading = asyncio.Lock()
        self._said: dict[str, dict[str, str]] = {}

    async def run(self) -> None:
        """Attend to every source; none of them is disturbed by what becomes of another."""
        failed: list[str] = []
        async with asyncio.TaskGroup() as group:
            for name in (*self.context.settings.channels, *self.context.settings.replays):
                group.create_task(self._attend(name, failed), name=f"can_signals:{name}")
        if failed:
            raise FatalError("; ".join(failed))

    async def _attend(self, name: str, failed: list[str]) -> None:
        """Run one source; what no further try can help is kept until all have ended so."""
        settings = self.context.settings
        source = settings.channels.get(name) or settings.replays[name]
        report = partial(self._report, name)
        async with self._loading:
            report("state", "loading its DBC files")
            directory, broken = await load(source.dbc, self.context)
        report("files", "; ".join(broken))
        kind = Channel if name in settings.channels else Player
        try:
            await kind(name, directory, self.context, report).run()
        except FatalError as error:
            report("state", str(error))
            failed.append(str(error))

    def _report(self, name: str, about: str, text: str) -> None:
        """Say it together with what was said of everything else."""
        self._said.setdefault(name, {})[about] = text
        self.context.report(
            "; ".join(
                f"{each}: {', '.join(filter(None, said.values()))}"
                for each, said in self._said.items()
            )
        )
