"""A shop under test: agents, mosquitto with TLS and the console on SQLite, each a real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.promises import Verdict, arrived, judge, noted

from nexus_agent.cli.client import Agent
from nexus_agent.cli.errors import AgentError
from nexus_console.db.models import STREAMS
from nexus_demo import api
from nexus_demo.broker import Broker, Kind
from nexus_demo.certs import Authority, Credentials
from nexus_demo.processes import Process, free_port
from nexus_demo.relay import Relay
from nexus_demo.waiting import DemoError, NotYet, together, until

PLUGINS: Final = Path(__file__).parent / "agent_plugins"
DRAIN_S: Final = 300.0
"""After the last fault: the longest pause before a box or the console connects again (128 s), two
handshakes (20 s), one time without an answer (10 s), and then what the console needs for all that
was sent twice: some 100,000 events, at 10,000 a second where others use the machine, too."""
_READY_S: Final = 60.0
_USER: Final = "chaos"
_PASSWORD: Final = "only for this test"


@dataclass(frozen=True, slots=True)
class Load:
    """What each box's plugin emits. rate: events a second.

    relayed: whether it goes up through a relay, which can be cut.
    """

    rate: float
    seed: int
    relayed: bool = False


@dataclass(slots=True)
class Victim:
    """A process that may be killed or frozen at any time. start: how it is started."""

    name: str
    process: Process
    start: Callable[[], Awaitable[None]]
    deaths: list[tuple[int, int]] = field(default_factory=list)
    """When it was killed, ns of the monotonic clock, and in which case."""
    _up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_up(self) -> bool:
        """Whether it should be running."""
        return self._up.is_set()

    async def rise(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        await self.start()
        self._up.set()

    async def fall(self, case: int) -> None:
        """SIGKILL, once it is started. DemoError if it had ended by itself."""
        await self._up.wait()
        self._up.clear()
        self.process.check()
        self.deaths.append((time.monotonic_ns(), case))
        await self.process.kill()

    async def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT afterwards."""
        await self._up.wait()
        self._up.clear()
        self.process.check()
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.process.pid, signal.SIGCONT)
            self._up.set()


class Box:
    """One agent with the load plugin, and its way to the broker: a relay if *load* has one."""

    def __init__(
        self, name: str, folder: Path, broker: Broker, own: Credentials, load: Load, ack: str
    ) -> None:
        (folder / "state").mkdir(parents=True, exist_ok=True)
        self.name = name
        self.state = folder / "state"
        self.notes, self.quiet = folder / "notes", folder / "quiet"
        self.notes.touch()
        self._noted = 0
        self.relay = Relay(broker.port)
        self._socket = folder / "agent.sock"
        config = folder / "agent.toml"
        config.write_text(
            _AGENT.format(
                name=name,
                folder=folder,
                broker=_broker_section(
                    broker, self.relay.port if load.relayed else broker.port, own
                ),
                ack=ack,
                rate=load.rate,
                seed=load.seed,
            ),
            "utf-8",
        )
        self._process = Process(
            name,
            [sys.executable, "-m", "nexus_agent", "run", "--config", config],
            folder / "agent.log",
            {**_environ(), "PYTHONPATH": str(PLUGINS)},
        )
        self.agent = Victim(name, self._process, self._start)

    async def ask(self, path: str) -> Any:
        """What the status socket says; NotYet while it does not answer."""
        if not self.agent.is_up:
            raise NotYet(f"{self.name} is down")
        self.agent.process.check()
        try:
            return json.loads(await asyncio.to_thread(Agent(str(self._socket)).get, path))
        except AgentError as error:
            raise NotYet(str(error)) from None

    async def works(self) -> None:
        """NotYet unless it is connected and its plugin was promised something in this life."""
        if self.notes.stat().st_size == self._noted:
            raise NotYet(f"{self.name} has emitted nothing")
        broker = (await self.ask("/v1/status"))["broker"]
        if broker["state"] != "connected":
            raise NotYet(f"{self.name}: {broker}")

    async def _start(self) -> None:
        self._noted = self.notes.stat().st_size
        await self._process.start()

    async def drained(self) -> None:
        """NotYet unless the plugin has come to its end and everything is released."""
        plugins = {p["name"]: p["report"] for p in (await self.ask("/v1/plugins"))["plugins"]}
        streams = (await self.ask("/v1/outbox"))["streams"]
        waiting = {s["stream"]: s["pending_events"] for s in streams if s["pending_events"]}
        if plugins["numbers"] != "quiet" or waiting:
            broker = (await self.ask("/v1/status"))["broker"]
            raise NotYet(f"{self.name}: {plugins}, waiting {waiting}, broker {broker}")


class Shop:
    """Everything that runs; made and taken down by `opened`."""

    def __init__(self, folder: Path, boxes: int, load: Load, ack: str) -> None:
        authority = Authority(folder / "pki")
        self.broker = Broker(folder / "broker", authority, Kind.MOSQUITTO)
        names = [f"box-{number}" for number in range(1, boxes + 1)]
        self.boxes = [
            Box(name, folder / name, self.broker, authority.client(name), load, ack)
            for name in names
        ]
        home, listen = folder / "console", f"127.0.0.1:{free_port()}"
        home.mkdir()
        self.database = home / "console.db"
        self._address = f"http://{listen}"
        self._config = home / "console.toml"
        section = _broker_section(self.broker, self.broker.port, authority.client("console"))
        self._config.write_text(
            _CONSOLE.format(listen=listen, database=self.database, broker=section), "utf-8"
        )
        self._command = [sys.executable, "-m", "nexus_console"]
        process = Process(
            "console",
            [*self._command, "run", "--config", self._config],
            home / "console.log",
            _environ(),
        )
        self.console = Victim("console", process, process.start)
        self.mosquitto = Victim("broker", self.broker.process, self.broker.start)
        self.drain_s = 0.0
        """How long the last drain took."""

    async def start(self) -> None:
        await self.mosquitto.rise()
        for box in self.boxes:
            await box.relay.open()
        await together(victim.rise() for victim in (self.console, *(b.agent for b in self.boxes)))
        await until("the console is well", self._console_well, within=_READY_S)
        for box in self.boxes:
            await until(f"{box.name} works", box.works, within=_READY_S)

    async def stop(self) -> None:
        await together(box.agent.process.kill() for box in self.boxes)
        await together(box.relay.cut() for box in self.boxes)
        await self.console.process.kill()
        await self.broker.kill()

    async def drain(self) -> None:
        """End the load; return once every box has delivered all. DemoError after DRAIN_S."""
        began = time.monotonic()
        for box in self.boxes:
            box.quiet.touch()
        await until("everything is delivered", self._drained, within=DRAIN_S)
        self.drain_s = time.monotonic() - began

    async def _drained(self) -> None:
        for box in self.boxes:
            await box.drained()
        await self._console_well()

    async def judge(self, patience: float = 5.0) -> Verdict:
        """Compare what was promised with what the console has, or has within *patience* s.

        With `ack = "broker"` the console may still be reading what the boxes have released.
        """
        promised = {
            lane: numbers
            for box in self.boxes
            for lane, numbers in noted(box.name, box.notes).items()
        }
        deadline = time.monotonic() + patience
        while True:
            verdict = judge(promised, arrived(self.database))
            if not verdict.lost or time.monotonic() > deadline:
                return verdict
            await asyncio.sleep(0.5)

    async def delivery(self) -> dict[str, list[Any]]:
        """The console's `/delivery` of each box. Once, for it needs a user."""
        await self._add_user()
        async with api.signed_in(self._address, _USER, _PASSWORD) as console:
            return {box.name: await console.delivery(box.name) for box in self.boxes}

    def marks(self) -> dict[tuple[str, str], int]:
        """How far the console has committed, by box and stream, read beside it or after it."""
        query = (
            "SELECT name, stream, high_water FROM streams JOIN devices ON devices.id = device_id"
        )
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(f"{query} WHERE epoch = 1").fetchall()
        return {(name, STREAMS[code]): mark for name, code, mark in rows}

    def tails(self) -> str:
        """The end of every log."""
        processes = [self.broker.process, self.console.process]
        return "\n".join(p.tail() for p in (*processes, *(b.agent.process for b in self.boxes)))

    async def _console_well(self) -> None:
        self.console.process.check()
        answer = await api.health(self._address)
        if not answer["ok"] or answer["broker"] != "connected":
            raise NotYet(f"the console says {json.dumps(answer)}")

    async def _add_user(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *(*self._command, "user", "add", _USER, "--role", "viewer"),
            *("--config", str(self._config), "--password-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environ(),
        )
        said, _ = await process.communicate(f"{_PASSWORD}\n".encode())
        if process.returncode != 0:
            raise DemoError(f"nexus-console user add: {said.decode(errors='replace')}")


@asynccontextmanager
async def opened(folder: Path, boxes: int, load: Load, ack: str = "console") -> AsyncIterator[Shop]:
    """A shop for the length of a block; nothing of it outlives the block."""
    shop = Shop(folder, boxes, load, ack)
    try:
        await shop.start()
        yield shop
    finally:
        await shop.stop()


def amiss(delivery: dict[str, list[Any]]) -> list[str]:
    """What `/delivery` shows that faults which lose nothing must not bring about."""
    found = []
    for box, streams in delivery.items():
        for stream in streams:
            where = f"{box} {stream['epoch']}/{stream['stream']}"
            found += [
                f"{where}: {key} {json.dumps(stream[key])[:200]}"
                for key in ("gaps", "losses", "conflicts", "undecodable")
                if stream[key]
            ]
            if stream["received"] != stream["high_water"]:
                found.append(f"{where}: {stream['received']} received up to {stream['high_water']}")
    return found


def duplicates(delivery: dict[str, list[Any]]) -> int:
    """Events that came more than once and were absorbed."""
    return sum(stream["duplicates"] for streams in delivery.values() for stream in streams)


def leaves(group: BaseExceptionGroup[DemoError]) -> Iterator[BaseException]:
    """The failures themselves, however deep."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def _environ() -> dict[str, str]:
    """Our environment without settings that were meant for another agent or console."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}


_AGENT: Final = """\
[agent]
id = "{name}"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
{broker}
ack = "{ack}"
[plugins.numbers]
isolation = "task"
notes = "{folder}/notes"
quiet = "{folder}/quiet"
rate = {rate}
seed = {seed}
"""
_CONSOLE: Final = """\
[server]
listen = "{listen}"
[database]
url = "sqlite:///{database}"
{broker}
"""


def _broker_section(broker: Broker, port: int, own: Credentials) -> str:
    return f"""\
[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{broker.ca}"
cert = "{own.cert}"
key = "{own.key}\""""
