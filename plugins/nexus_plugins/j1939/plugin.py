"""The plugin: one network, and the scan."""

from __future__ import annotations

import asyncio
from typing import Any

from nexus_agent.plugin import Context, Plugin, Progress, ScanArgs, command
from nexus_plugins.j1939 import scan
from nexus_plugins.j1939.network import Network
from nexus_plugins.j1939.settings import J1939Settings


class J1939Plugin(Plugin[J1939Settings]):
    """Listens to a commercial vehicle's J1939 bus; see README.md for events and commands."""

    name = "j1939"
    version = "1.0.0"
    description = "Listens to a commercial vehicle's J1939 bus: faults as they come and go, scans."
    author = "Nexus Core"
    emits = ("adapter.state", "j1939.fault", "module.identity")
    devices = ("channel",)
    settings_model = J1939Settings
    live = frozenset({"listen_only", "address", "spn_method", "listen_s", "answer_s"})

    def __init__(self, context: Context[J1939Settings]) -> None:
        super().__init__(context)
        self._scanning = asyncio.Lock()
        self._network = Network(context)

    async def run(self) -> None:
        """Attend to the bus for ever."""
        await self._network.run()

    @command(args=ScanArgs, timeout_s=300.0, scans=True)
    async def scan(self, args: ScanArgs, progress: Progress) -> dict[str, Any]:
        """Ask every control unit for its codes, and the vehicle for its VIN."""
        async with self._scanning:
            return await scan.scan(self._network, args, progress)
