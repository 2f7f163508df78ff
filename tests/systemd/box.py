"""A box as its owner has it: a machine with our package, set up for the broker and the car."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.chaos.promises import Verdict, arrived, judge, noted
from tests.systemd.machine import INSTALL, Machine

from nexus_demo import api
from nexus_demo.fleet import USER, Fleet
from nexus_demo.waiting import NotYet, until

DEVICE: Final = "box-1"
PROBE: Final = Path(__file__).parent / "agent_plugins"
LOAD: Final = Path(__file__).parents[1] / "chaos/agent_plugins"
AGENT: Final = "nexus-agent.service"
PLUGINS: Final = "[Service]\nEnvironment=PYTHONPATH=/usr/share/nexus-tests\n"
WITHIN_S: Final = 60.0


class Box:
    """*machine* with the agent's package."""

    def __init__(self, name: str, machine: Machine, fleet: Fleet, adapter: int) -> None:
        self.name = name
        self.machine = machine
        self.fleet = fleet
        self._adapter = adapter

    async def install(self) -> None:
        """Install the package, set the box up, start it; return once it is at the console."""
        self.set_up()
        await self.machine.run(*INSTALL, "--force-confold", "/opt/agent.deb")
        await self.machine.run("chown", "-R", "root:nexus", "/etc/nexus")
        await self.machine.run("systemctl", "enable", "--now", AGENT)
        await self.connected()

    def set_up(self, more: str = "") -> None:
        """Write its settings, and the keys that an enrolment would bring."""
        own = self.fleet.authority.client(self.name)
        home = self.machine.root / "etc/nexus"
        home.mkdir(parents=True, exist_ok=True)
        for file, name in ((self.fleet.broker.ca, "ca"), (own.cert, "crt"), (own.key, "key")):
            shutil.copy(file, home / f"box.{name}")
        for name in ("ca", "crt", "key"):
            (home / f"box.{name}").chmod(0o640)
        text = _AGENT.format(name=self.name, port=self.fleet.broker.port, adapter=self._adapter)
        self.machine.write("/etc/nexus/agent.toml", text + more, mode=0o640)

    @asynccontextmanager
    async def altered(self, name: str, unit: str = "", settings: str = "") -> AsyncIterator[None]:
        """Run with more in its unit and its settings for the length of a block."""
        await self._alter(name, PLUGINS + unit, settings)
        try:
            yield
        finally:
            await self._alter(name, "", "")
            await self.connected()

    async def _alter(self, name: str, unit: str, settings: str) -> None:
        self.set_up(settings)
        await self.machine.run("chown", "-R", "root:nexus", "/etc/nexus")
        await self.machine.drop_in(name, unit)
        await self.machine.run("systemctl", "reset-failed", AGENT, check=False)
        await self.machine.run("systemctl", "restart", AGENT)

    async def status(self) -> Any:
        return await self.machine.ask("/v1/status")

    async def plugins(self) -> dict[str, Any]:
        """Its plugins by name."""
        return {p["name"]: p for p in (await self.machine.ask("/v1/plugins"))["plugins"]}

    async def connected(self, within: float = WITHIN_S) -> Any:
        """Its status, once it is connected with the broker. DemoError if it is not."""

        async def look() -> Any:
            status = await self.status()
            if status["broker"]["state"] != "connected":
                raise NotYet(json.dumps(status["broker"]))
            return status

        return await until(f"{self.name} is connected", look, within=within)

    async def waiting(self) -> int:
        """How many events wait for the console."""
        streams = (await self.machine.ask("/v1/outbox"))["streams"]
        return sum(stream["pending_events"] for stream in streams)

    async def drained(self, within: float = WITHIN_S) -> None:
        """Return once nothing waits any more."""

        async def look() -> None:
            if waiting := await self.waiting():
                raise NotYet(f"{waiting} events wait")

        await until(f"{self.name} has delivered all", look, within=within)

    async def event(
        self,
        event_type: str,
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
        within: float = WITHIN_S,
    ) -> dict[str, Any]:
        """The newest event of this type at the console, out here, that is *wanted*."""
        async with api.signed_in(self.fleet.address, USER, self.fleet.password) as console:

            async def look() -> dict[str, Any]:
                found = await console.events(self.name, event_type)
                for event in reversed(found):
                    if wanted(event):
                        return dict(event)
                raise NotYet(f"{len(found)} events of {event_type}, none as wanted")

            return await until(f"{event_type} at the console", look, within=within)

    async def pid(self) -> int:
        """The process id, on the machine, of the agent."""
        return int(await self.machine.show(AGENT, "MainPID"))

    async def restarts(self) -> int:
        return int(await self.machine.show(AGENT, "NRestarts"))

    async def version(self) -> str:
        return str((await self.status())["version"])

    def judge(self) -> Verdict:
        """What the load plugin was promised, against what the console has."""
        notes = self.machine.root / "var/lib/nexus/notes"
        return judge(noted(self.name, notes), arrived(self._console))

    @property
    def _console(self) -> Path:
        return self.fleet.folder / "console/console.db"


def numbers(rate: float) -> str:
    """Settings of the load plugin. rate: events a second."""
    return _NUMBERS.format(rate=rate)


def probe(deed: str) -> str:
    """Settings of the probe plugin."""
    return f'[plugins.probe]\nisolation = "task"\ndo = "{deed}"\n'


def exposure(report: str) -> float:
    """The verdict of `systemd-analyze security`."""
    found = re.search(r"exposure level for \S+: ([0-9.]+)", report)
    if found is None:
        raise ValueError(f"no verdict in {report!r}")
    return float(found[1])


async def gathered(condition: Callable[[], Awaitable[bool]], what: str, within: float) -> None:
    """Return once *condition* is true."""

    async def look() -> None:
        if not await condition():
            raise NotYet("not yet")

    await until(what, look, within=within)


_AGENT: Final = """\
[agent]
id = "{name}"
[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "/etc/nexus/box.ca"
cert = "/etc/nexus/box.crt"
key = "/etc/nexus/box.key"
keepalive_s = 10
presence_interval_s = 10
[plugins.host]
interval_s = 5
[plugins.obd]
port = "socket://127.0.0.1:{adapter}"
interval_s = 0.5
reconnect_max_s = 5
"""
_NUMBERS: Final = """\
[plugins.numbers]
isolation = "task"
notes = "/var/lib/nexus/notes"
quiet = "/var/lib/nexus/quiet"
rate = {rate}
seed = 5
"""
