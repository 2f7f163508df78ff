"""What one network case runs: broker, gate, lines and console here, the agent in a process."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select
from tests.chaos.delivery_parts import templates
from tests.chaos.network_agent import (
    ATTEMPTS,
    DIAL_S,
    DONE,
    ENOUGH,
    KEEPALIVE_S,
    NO_NAMES,
    PING_MARGIN_S,
    PROMISED,
    VALUE,
    Broken,
    Order,
)
from tests.chaos.network_gate import Gate
from tests.chaos.network_proxy import Proxy

from nexus_agent.cli.client import Agent
from nexus_agent.cli.errors import AgentError
from nexus_agent.transport import Dialer
from nexus_console.blocks import with_lines
from nexus_console.config import BrokerSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import events, remarks, unreadable
from nexus_console.ingest import Inbox, Writer
from nexus_console.mqtt import Link
from nexus_console.standing import LaneState, lane_states
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority
from nexus_demo.processes import Process
from nexus_demo.waiting import DemoError, NotYet, until

DEVICE: Final = "box-1"
START_S: Final = 30.0
CONSOLE_CAP_S: Final = 0.5
CONSOLE_HANDSHAKE_S: Final = 2.0
_LOOK_S: Final = 0.1
_STARVED: Final = 4.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


@cache
def _made() -> tuple[tempfile.TemporaryDirectory[str], tuple[Path, Path]]:
    """A state folder and a console's database with their schemas, which go with the process."""
    folder = tempfile.TemporaryDirectory()
    return folder, templates(Path(folder.name))


@contextmanager
def quick_console() -> Iterator[None]:
    """Consoles of this process find dead lines and come back within seconds. Outside of a loop."""
    _made()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nexus_console.mqtt.LONGEST_WAIT_S", CONSOLE_CAP_S)
        patch.setattr("nexus_console.mqtt.HANDSHAKE_S", CONSOLE_HANDSHAKE_S)
        patch.setattr("nexus_console.mqtt.Dialer", partial(Dialer, within=DIAL_S))
        patch.setattr("nexus_agent.transport.dialer.PING_MARGIN_S", PING_MARGIN_S)
        yield


class Acknowledgements:
    """Between the console's writer and its link: what becomes of acknowledgements on their way.

    drop: they are lost. hold: they come when that ends, in any order, some of them twice. stale:
    each comes twice, and with it one of those that came before, of earlier sessions too.
    """

    def __init__(self, link: Link, chance: random.Random) -> None:
        self._link, self._chance = link, chance
        self._lock = threading.Lock()
        self._manner = "pass"
        self._held: list[tuple[str, bytes]] = []
        self._past: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes) -> bool:
        with self._lock:
            manner, one = self._manner, (topic, payload)
            self._past.append(one)
            if manner == "drop":
                return True
            if manner == "hold":
                self._held.append(one)
                return True
            more = [one, self._chance.choice(self._past)] if manner == "stale" else []
        for other in more:
            self._link.publish(*other)
        return self._link.publish(topic, payload)

    def follow(self, manner: str) -> None:
        with self._lock:
            self._manner = manner
            held, self._held = self._held, []
        again = self._chance.sample(held, len(held) // 2)
        for one in self._chance.sample(held + again, len(held) + len(again)):
            self._link.publish(*one)


class Console:
    """The console's writer and its session with the broker, each on a thread of its own."""

    def __init__(self, file: Path, settings: BrokerSettings, chance: random.Random) -> None:
        self.database = Database(f"sqlite:///{file}")
        inbox = Inbox()
        nervous = settings.model_copy(update={"keepalive_s": KEEPALIVE_S})
        self.link = Link(nervous, settings.tls_context(), inbox)
        self.acks = Acknowledgements(self.link, chance)
        self._writer = Writer(
            self.database, inbox, publish=self.acks.publish, came_up=lambda _: None
        )
        self._threads = [
            threading.Thread(target=work, name=f"console:{name}")
            for name, work in (("link", self.link.run), ("writer", self._writer.run))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._writer.stop()
        self.link.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.database.close()

    def shown(self) -> Counter[int]:
        """How often each number of the load is visible."""
        statement = select(events).where(events.c.type == VALUE)
        with self.database.read() as connection:
            rows = connection.execute(statement).all()
            return Counter(
                json.loads(row.line)["data"]["n"] for row in with_lines(connection, rows)
            )

    def lanes(self) -> list[LaneState]:
        with self.database.read() as connection:
            return lane_states(connection, 1)

    def oddities(self) -> list[str]:
        """What the console remarked, or could not read: no line can be the cause of that."""
        with self.database.read() as connection:
            found = [row.text for row in connection.execute(select(remarks.c.text))]
            return found + [row.reason for row in connection.execute(select(unreadable.c.reason))]


class Rig:
    """One case's parts. `start` it, break what it has, and `stop` it."""

    def __init__(self, folder: Path, seed: str, broken: Broken) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        chance = random.Random(f"{seed}:rig")
        self._short = tempfile.TemporaryDirectory(prefix="nexus-")
        """Unix sockets take 107 bytes of path (unix(7))."""
        authority = Authority(folder / "ca")
        self._authority = authority
        self.broker = self._make_broker()
        self.gate = Gate(self.broker.port, authority)
        self.line = Proxy(self.gate.port, chance)
        self.far_line = Proxy(self.broker.port, chance)
        self._ca = authority.ca
        shutil.copytree(_made()[1][0], folder / "state", ignore=shutil.ignore_patterns("*-shm"))
        shutil.copy(_made()[1][1], folder / "console.db")
        url = f"mqtts://127.0.0.1:{self.far_line.port}"
        settings = BrokerSettings(url=url, ca=self._ca)
        self.console = Console(folder / "console.db", settings, chance)
        self._socket = Path(self._short.name) / "agent.sock"
        order = Order(config=self._config(), folder=folder, seed=seed, broken=broken)
        command = (sys.executable, "-m", "tests.chaos.network_agent", order.model_dump_json())
        self.agent = Process("agent", command, folder / "agent.log")

    def _make_broker(self) -> Broker:
        return Broker(self.folder / "broker", self._authority, choose("mosquitto"))

    async def _start_broker(self) -> None:
        """On another port if somebody took the first one meanwhile."""
        try:
            await self.broker.start()
        except DemoError:
            self.broker = self._make_broker()
            self.gate.target = self.far_line.target = self.broker.port
            await self.broker.start()

    def _config(self) -> dict[str, Any]:
        return {
            "agent": {
                "id": DEVICE,
                "state_dir": str(self.folder / "state"),
                "socket": str(self._socket),
            },
            "broker": {"url": f"mqtts://127.0.0.1:{self.line.port}", "ca": str(self._ca)},
        }

    async def start(self) -> None:
        """Return once something of the load has been promised, and the box is connected."""
        await self._start_broker()
        await self.gate.open()
        await self.line.open()
        await self.far_line.open()
        self.console.start()
        await self.agent.start()
        await until("the box is connected", self._is_up, within=START_S, every=0.05)

    async def _is_up(self) -> None:
        self.agent.check()
        outbox = await self._outbox()
        if not outbox["connected"] or not (self.folder / PROMISED).exists():
            raise NotYet("not connected")

    async def _outbox(self) -> dict[str, Any]:
        try:
            answer = await asyncio.to_thread(Agent(str(self._socket)).get, "/v1/outbox")
        except AgentError as error:
            raise NotYet(str(error)) from None
        found: dict[str, Any] = json.loads(answer)
        return found

    async def stop(self) -> int | None:
        """The agent's exit code."""
        code = await self.agent.stop()
        await asyncio.to_thread(self.console.close)
        self.line.close()
        self.far_line.close()
        self.gate.close()
        await self.broker.stop()
        self._short.cleanup()
        return code

    def resolve(self, *, names: bool) -> None:
        """Whether the box finds the broker's address."""
        if names:
            (self.folder / NO_NAMES).unlink(missing_ok=True)
        else:
            (self.folder / NO_NAMES).touch()
            self.line.reset()

    def end_load(self) -> None:
        (self.folder / ENOUGH).touch()

    async def settled(self, within: float) -> float | None:
        """Seconds until all that was promised is acknowledged; None if that takes too long.

        A look that this machine makes wait counts as one of `_LOOK_S`: it has no time for the box
        either. More than `_STARVED` times *within* is too long on any machine.
        """
        began = time.monotonic()
        counted = 0.0
        while counted < within and time.monotonic() - began < _STARVED * within:
            looked = time.monotonic()
            await asyncio.sleep(_LOOK_S / 2)
            if await self._is_settled():
                return counted
            counted += min(time.monotonic() - looked, _LOOK_S)
        return None

    async def _is_settled(self) -> bool:
        if not (self.folder / DONE).exists():
            return False
        try:
            outbox = await self._outbox()
        except NotYet:
            return False
        return not any(stream["pending_events"] for stream in outbox["streams"])

    def promised(self) -> list[int]:
        return [int(line) for line in (self.folder / PROMISED).read_text().splitlines()]

    def attempts(self, since: float) -> int:
        """Attempts to connect since that moment of `time.monotonic`."""
        lines = (self.folder / ATTEMPTS).read_text().splitlines()
        return sum(float(line) >= since for line in lines)

    def cpu_seconds(self) -> float:
        """Of the agent so far (proc(5): fields 14 and 15 of stat)."""
        text = Path(f"/proc/{self.agent.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def complaints(self) -> list[str]:
        """Lines of the agent's log that no line may bring about, but for what paho says of one."""
        text = self.agent.log.read_text(errors="replace")
        signs = ("Traceback", '"level": "error"', '"level": "critical"', "never retrieved")
        return [
            line
            for line in text.splitlines()
            if any(sign in line for sign in signs) and "failed to receive on socket" not in line
        ]
