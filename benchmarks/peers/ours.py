"""Nexus Core's own agent, as it is shipped, with one plugin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from nexus_agent.store.database import FILE_NAME
from nexus_demo.processes import Process
from peers.contestant import Contestant, size_of
from peers.course import HERE, Desk

_TOML: Final = """\
[agent]
id = "bench"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
[plugins.feed]
isolation = "task"
# The plugin is the load: what the agent can take is measured, not what it lets one plugin send.
limits = {{ events_s = 10_000_000 }}
"""
_METADATA: Final = "Metadata-Version: 2.1\nName: nexus-bench\nVersion: 1\n"
_ENTRY_POINT: Final = "[nexus.plugins]\nfeed = peers.producers.nexus_feed:FeedPlugin\n"


class Nexus(Contestant):
    """The agent's process; the plugin is found as anybody's is, by its entry point."""

    name = "nexus"
    form = "nexus"
    what = "the agent, one plugin that emits"

    def __init__(self, folder: Path, ca: Path, desk: Desk, load: Path) -> None:
        super().__init__(folder, ca, desk, load)
        about = folder / "plugins" / "nexus_bench-1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(_METADATA)
        (about / "entry_points.txt").write_text(_ENTRY_POINT)
        self.environ["PYTHONPATH"] = f"{HERE}:{about.parent}"
        config = folder / "agent.toml"
        command = [sys.executable, "-m", "nexus_agent", "run", "--config", str(config)]
        self._config = config
        self.process = Process("agent", command, folder / "agent.log", self.environ)

    async def start(self, port: int) -> float:
        self._config.write_text(_TOML.format(folder=self.folder, port=port, ca=self.ca))
        return await self._run()

    def disk(self) -> int:
        return size_of(self.folder / "state", f"{FILE_NAME}*")
