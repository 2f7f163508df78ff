"""Sends `host.metrics` at a set interval."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field

from nexus_agent.plugin import EmitError, Plugin, Settings, Stream
from nexus_plugins.host.metrics import Metrics, metrics
from nexus_plugins.host.reading import Reading, read

FIRST_S: Final = 0.5
"""How long the first CPU load and rates are measured over."""


class HostSettings(Settings):
    """What `[plugins.host]` takes."""

    interval_s: float = Field(default=60.0, ge=1, le=86_400)
    """Seconds between two `host.metrics`."""
    state_path: Path = Path("/var/lib/nexus")
    """Whose disk is shown as `disk_state`: where the agent keeps what waits."""
    ignored_interfaces: tuple[str, ...] = ("lo", "veth*", "docker*", "br-*", "virbr*")
    """Shell patterns of network interfaces that are left out."""


class HostPlugin(Plugin[HostSettings]):
    """Reads the machine with psutil; every look runs on a worker thread."""

    name = "host"
    version = "1.0"
    description = "How the box is doing: CPU, memory, disks, temperatures, network, clock."
    author = "Nexus Core"
    emits = ("host.metrics",)
    devices = ("state_path",)
    settings_model: ClassVar[type[Settings]] = HostSettings
    live = frozenset(HostSettings.model_fields)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        before = await self._look()
        await self.context.sleep(FIRST_S)
        due = loop.time()
        while True:
            now = await self._look()
            self._send(metrics(before, now))
            before = now
            due = max(due + self.context.settings.interval_s, loop.time())
            if await self.context.sleep(due - loop.time()):
                due = loop.time()

    async def _look(self) -> Reading:
        settings = self.context.settings
        return await self.context.run_blocking(
            read, settings.state_path, settings.ignored_interfaces
        )

    def _send(self, found: Metrics) -> None:
        try:
            self.context.hand_over("host.metrics", found, stream=Stream.TELEMETRY)
        except EmitError as error:
            self.context.log.warning("a reading of the host was not taken", reason=str(error))
        self.context.report(_summary(found))


def _summary(found: Metrics) -> str:
    named = (("CPU", "cpu"), ("memory", "memory"), ("disk", "disk_root"))
    known = [
        f"{name} {found[key]['value']:.0f} %"
        for name, key in named
        if found[key]["value"] is not None
    ]
    return ", ".join(known) or "nothing can be read here"
