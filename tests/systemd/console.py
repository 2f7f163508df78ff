"""A console as its owner has it: a machine with our package, set up for the broker."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.systemd.machine import INSTALL, Machine

from nexus_demo import api
from nexus_demo.broker import Broker
from nexus_demo.certs import Authority
from nexus_demo.fleet import USER
from nexus_demo.processes import free_port
from nexus_demo.waiting import NotYet, until

CONSOLE: Final = "nexus-console.service"
HOME: Final = "/etc/nexus-console"
SETTINGS: Final = f"{HOME}/console.toml"
WITHIN_S: Final = 60.0


class Console:
    """*machine* with the console's package. The broker is out here."""

    def __init__(self, machine: Machine, broker: Broker, authority: Authority) -> None:
        self.machine = machine
        self._broker = broker
        self._own = authority.client("console")
        self._password = secrets.token_urlsafe(12)
        self._listen = f"127.0.0.1:{free_port()}"
        self.address = f"http://{self._listen}"

    async def take(self, package: Path) -> str:
        """Install *package*, over what is there; what dpkg said."""
        shutil.copy(package, self.machine.root / "opt/console.deb")
        return await self.machine.run(*INSTALL, "/opt/console.deb")

    async def set_up(self) -> None:
        """Edit its settings, bring its keys, make a user, and start it, as the manual says."""
        home = self.machine.root / HOME.lstrip("/")
        for file, name in (
            (self._broker.ca, "ca"),
            (self._own.cert, "crt"),
            (self._own.key, "key"),
        ):
            shutil.copy(file, home / f"console.{name}")
        text = _CONSOLE.format(listen=self._listen, home=HOME, url=self._broker.url)
        self.machine.write(SETTINGS, text, mode=0o640)
        await self.machine.run("sh", "-c", f"chown root:nexus-console {HOME}/*")
        await self.machine.run("sh", "-c", f"chmod 640 {HOME}/*")
        self.machine.write("/opt/password", f"{self._password}\n", mode=0o600)
        words = f"nexus-console user add {USER} --role admin --config {SETTINGS} --password-stdin"
        await self.machine.run("sh", "-c", f"{words} </opt/password")
        await self.machine.run("systemctl", "start", CONSOLE)

    async def well(self) -> Any:
        """What it says of its health, once all of it is well. DemoError if it is not."""

        async def look() -> Any:
            answer = await api.health(self.address)
            if not answer["ok"]:
                raise NotYet(json.dumps(answer))
            return answer

        return await until("the console is well", look, within=WITHIN_S)

    @asynccontextmanager
    async def signed_in(self) -> AsyncIterator[api.Console]:
        """Its API for the length of a block."""
        async with api.signed_in(self.address, USER, self._password) as console:
            yield console

    async def events(self, device: str) -> list[str]:
        """All the events of *device* by their keys, in the order in which they came."""
        async with self.signed_in() as console:
            if device not in await console.devices():
                return []
            found = await console.events(device)
        return [f"{event['epoch']}/{event['stream']}/{event['seq']}" for event in found]

    async def more(self, device: str, known: list[str]) -> list[str]:
        """The same, once there are more than those *known*."""

        async def look() -> list[str]:
            if len(found := await self.events(device)) <= len(known):
                raise NotYet(f"{len(found)} events")
            return found

        return await until(f"new events of {device}", look, within=WITHIN_S)

    async def pid(self) -> int:
        """The process id, on the machine, of the console."""
        return int(await self.machine.show(CONSOLE, "MainPID"))

    async def started_again(self, restarts: int) -> None:
        """Return once it is well again, started more than *restarts* times by systemd."""

        async def look() -> None:
            if (now := await self.restarts()) <= restarts:
                raise NotYet(f"{now} restarts")

        await until("systemd has started it again", look, within=WITHIN_S)
        await self.well()

    async def restarts(self) -> int:
        return int(await self.machine.show(CONSOLE, "NRestarts"))


_CONSOLE: Final = """\
[server]
listen = "{listen}"
[database]
url = "sqlite:////var/lib/nexus-console/console.db"
[broker]
url = "{url}"
ca = "{home}/console.ca"
cert = "{home}/console.crt"
key = "{home}/console.key"
"""
