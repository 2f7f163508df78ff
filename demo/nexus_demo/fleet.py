"""Boxes, vehicles, a broker and a console on one machine, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nexus_demo import api, doip, drive, vehicles
from nexus_demo.broker import Broker, Kind
from nexus_demo.certs import Authority, Credentials
from nexus_demo.memory import Memory
from nexus_demo.processes import Process, free_port
from nexus_demo.relay import Relay
from nexus_demo.vehicles import Vehicle
from nexus_demo.waiting import DemoError, NotYet, together, until

USER: Final = "demo"
_READY_S: Final = 30.0
_DEMO_ROOT: Final = Path(__file__).resolve().parent.parent

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bay:
    """A place in the shop: what its box is called, what car stands there, what is allowed."""

    box: str
    vehicle: Vehicle
    vin_leaves: bool
    """Whether this box may send the VIN up, or only its keyed reference."""
    may_clear: bool
    remembers: bool = False
    """Whether the story decides what trouble codes the car has, instead of its scenario."""
    relayed: bool = False
    """Whether the way to the broker is a relay, which can be cut."""
    guest: Path | None = None
    """The bundle folder of a plugin that runs here, too, with the settings of its sample.toml."""


BAYS: Final = (
    Bay("bay-1", vehicles.MISFIRE, vin_leaves=True, may_clear=True),
    Bay("bay-2", vehicles.CLEAN, vin_leaves=True, may_clear=False),
    Bay("bay-3", vehicles.AWKWARD, vin_leaves=False, may_clear=False),
)
STREET: Final = (replace(BAYS[0], remembers=True), replace(BAYS[1], relayed=True), BAYS[2])
"""The same three, for the story."""


class Station:
    """A box's agent, and the process of the vehicle that it is plugged into."""

    def __init__(self, name: str, folder: Path, config: str, car: Process) -> None:
        self.id = name
        self.socket = folder / "agent.sock"
        self.car = car
        path = folder / "agent.toml"
        path.write_text(config)
        self.agent = Process(
            f"{name}'s agent",
            [sys.executable, "-m", "nexus_agent", "run", "--config", path],
            folder / "agent.log",
            _environ(),
        )

    async def start(self) -> None:
        """Start car and agent; return once the agent's socket answers."""
        await self.car.start()
        await self.start_agent()

    async def start_agent(self) -> None:
        await self.agent.start()
        await until(f"{self.id} answers on its socket", self.status, within=_READY_S)

    async def status(self) -> Any:
        """What `nexus status` shows; NotYet while nobody answers."""
        self.agent.check()
        return await api.box(self.socket, "/v1/status")

    async def outbox(self) -> dict[str, Any]:
        """The outbox's streams by name."""
        self.agent.check()
        answer = await api.box(self.socket, "/v1/outbox")
        return {stream["stream"]: stream for stream in answer["streams"]}

    async def waiting(self) -> int:
        """How many events wait for the console."""
        return sum(stream["pending_events"] for stream in (await self.outbox()).values())


class Box(Station):
    """One bay's agent, the emulated car it is plugged into, and its way to the broker."""

    def __init__(self, bay: Bay, folder: Path, broker: Broker, authority: Authority) -> None:
        folder.mkdir()
        self.bay = bay
        self.memory = Memory(folder / "car.json")
        self.memory.remember()
        self._engine_off = folder / "engine-off"
        self.relay = Relay(broker.port)
        adapter = free_port()
        port = self.relay.port if bay.relayed else broker.port
        car = Process(
            f"{bay.box}'s car",
            [
                *(sys.executable, "-m", "nexus_demo.emulator"),
                *(bay.vehicle.scenario, "--port", str(adapter)),
                *(("--memory", folder / "car.json") if bay.remembers else ()),
                *("--engine-off", self._engine_off),
            ],
            folder / "car.log",
            {**os.environ, "PYTHONPATH": str(_DEMO_ROOT)},
        )
        broker_section = _broker_section(broker, port, authority.client(bay.box))
        config = _agent_toml(bay.box, folder, broker_section, _bay_sections(bay, adapter), bay)
        super().__init__(bay.box, folder, config, car)

    async def start(self) -> None:
        """Start car, relay if there is one, and agent; return once the agent's socket answers."""
        if self.bay.relayed:
            await self.relay.open()
        await super().start()

    @contextmanager
    def engine_off(self) -> Iterator[None]:
        """The car's engine is off, as it must be for a clear, until the block ends."""
        self._engine_off.touch()
        try:
            yield
        finally:
            self._engine_off.unlink()


class DoipStation(Station):
    """A box that asks a car's modules through its DoIP gateway."""

    NAME: Final = "bay-4"

    def __init__(self, folder: Path, broker: Broker, authority: Authority) -> None:
        folder.mkdir()
        port = free_port()
        car = doip.gateway(folder / "car", port, f"{self.NAME}'s gateway")
        section = _broker_section(broker, broker.port, authority.client(self.NAME))
        targets = ", ".join(f"0x{target:04X}" for target in doip.TARGETS)
        plugin = f"""\
[plugins.uds]
host = "127.0.0.1"
port = {port}
targets = [{targets}]
probe_interval_s = 5
"""
        super().__init__(self.NAME, folder, _agent_toml(self.NAME, folder, section, plugin), car)


class TruckStation(Station):
    """A box at a truck's J1939 bus, behind a serial CAN adapter. It replays a drive besides."""

    NAME: Final = "yard-1"

    def __init__(self, folder: Path, broker: Broker, authority: Authority) -> None:
        folder.mkdir()
        device = folder / "can"
        car = Process(
            f"{self.NAME}'s truck",
            [sys.executable, "-m", "nexus_demo.truck", device],
            folder / "car.log",
            {**os.environ, "PYTHONPATH": str(_DEMO_ROOT)},
        )
        log, dbc = drive.write(folder / "drive")
        section = _broker_section(broker, broker.port, authority.client(self.NAME))
        plugins = f"""\
[plugins.j1939]
interface = "slcan"
channel = {json.dumps(str(device))}
reconnect_max_s = 2

[plugins.can_signals.replays.drive]
file = {json.dumps(str(log))}
repeat = true
dbc = [{{ file = {json.dumps(str(dbc))}, j1939 = true }}]
"""
        super().__init__(self.NAME, folder, _agent_toml(self.NAME, folder, section, plugins), car)


class Fleet:
    """Everything that runs; made and taken down by `running`."""

    def __init__(
        self, folder: Path, kind: Kind, bays: Sequence[Bay] = BAYS, *, buses: bool = False
    ) -> None:
        """buses: whether a DoIP car and a truck are there, too."""
        self.folder = folder
        self.authority = Authority(folder / "pki")
        self.broker = Broker(folder / "broker", self.authority, kind)
        self.boxes = [Box(bay, folder / bay.box, self.broker, self.authority) for bay in bays]
        self.others: list[Station] = [
            kind(folder / kind.NAME, self.broker, self.authority)
            for kind in ((DoipStation, TruckStation) if buses else ())
        ]
        self.stations: list[Station] = [*self.boxes, *self.others]
        self.password = secrets.token_urlsafe(12)
        listen = f"127.0.0.1:{free_port()}"
        self.address = f"http://{listen}"
        home = folder / "console"
        home.mkdir()
        self._console_config = home / "console.toml"
        self._console_config.write_text(
            _console_toml(listen, home, self.broker, self.authority.client("console"))
        )
        self.console = Process(
            "console",
            [sys.executable, "-m", "nexus_console", "run", "--config", self._console_config],
            home / "console.log",
            _environ(),
        )

    def station(self, name: str) -> Station:
        """The one that is called so."""
        return next(one for one in self.stations if one.id == name)

    async def start(self, say: Say) -> None:
        """Start everything, what is needed first; return once all of it answers."""
        say(f"files and logs: {self.folder}")
        await self.broker.start()
        say(f"{self.broker.description}, {self.broker.url}")
        await self._add_user()
        await self.console.start()
        await until("the console is well", self.console_well, within=_READY_S)
        say(f"console: {self.address}")
        await together(station.start() for station in self.stations)
        pids = (f"{station.id} (pid {station.agent.pid})" for station in self.stations)
        say("agents: " + ", ".join(pids))

    async def stop(self) -> None:
        """Stop everything in reverse order; what does not go is killed."""
        await together(station.agent.stop() for station in self.stations)
        await together(box.relay.cut() for box in self.boxes)
        await together(station.car.stop() for station in self.stations)
        await self.console.stop()
        await self.broker.stop()

    async def console_well(self) -> None:
        """NotYet unless the console answers, has its database and is connected to the broker."""
        self.console.check()
        answer = await api.health(self.address)
        if not answer["ok"] or answer["broker"] != "connected":
            raise NotYet(f"it says {json.dumps(answer)}")

    def check(self) -> None:
        """DemoError if broker, console or an agent has ended by itself."""
        for process in self._processes():
            process.check()

    def tails(self) -> str:
        """The end of every log."""
        return "\n".join(process.tail() for process in self._processes())

    def _processes(self) -> list[Process]:
        return [self.broker.process, self.console, *(one.agent for one in self.stations)]

    async def _add_user(self) -> None:
        command = [sys.executable, "-m", "nexus_console", "user", "add", USER, "--role", "admin"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--config", str(self._console_config), "--password-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_environ(),
        )
        output, _ = await process.communicate(f"{self.password}\n".encode())
        if process.returncode != 0:
            raise DemoError(f"nexus-console user add failed:\n{output.decode(errors='replace')}")


@asynccontextmanager
async def running(
    folder: Path, kind: Kind, say: Say, bays: Sequence[Bay] = BAYS, *, buses: bool = False
) -> AsyncIterator[Fleet]:
    """A started fleet for the length of a block; nothing of it outlives the block.

    Where a DemoError passes through, the ends of the logs are said.
    """
    fleet = Fleet(folder, kind, bays, buses=buses)
    try:
        await fleet.start(say)
        yield fleet
    except DemoError:
        say(f"the ends of the logs:\n{fleet.tails()}")
        raise
    finally:
        await fleet.stop()


def _environ() -> dict[str, str]:
    """Our environment without settings that were meant for another agent or console."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}


# Values are written as JSON, which TOML's strings, integers, booleans and arrays contain.


def _bay_sections(bay: Bay, adapter: int) -> str:
    """The plugins of a box at an OBD socket."""
    guest = "" if bay.guest is None else (bay.guest / "sample.toml").read_text("utf-8")
    return f"""\
[plugins.obd]
port = {json.dumps(f"socket://127.0.0.1:{adapter}")}
interval_s = 0.5
reconnect_max_s = 5

{guest}"""


def _agent_toml(
    name: str, folder: Path, broker_section: str, plugins: str, bay: Bay | None = None
) -> str:
    """bay: what is allowed there; without one, what a box allows by itself, and the VIN."""
    allow = ["read", "clear"] if bay is not None and bay.may_clear else ["read"]
    vin = "plain" if bay is None or bay.vin_leaves else "reference"
    bundles = folder / "bundles" if bay is None or bay.guest is None else bay.guest.parent
    return f"""\
[agent]
id = {json.dumps(name)}
state_dir = {json.dumps(str(folder / "state"))}
socket = {json.dumps(str(folder / "agent.sock"))}
bundles = {json.dumps(str(bundles))}

{broker_section}
keepalive_s = 10
presence_interval_s = 10

[log]
format = "console"

[privacy]
vin = {json.dumps(vin)}

[safety]
allow = {json.dumps(allow)}

[plugins.host]
interval_s = 5

{plugins}"""


def _console_toml(listen: str, home: Path, broker: Broker, own: Credentials) -> str:
    return f"""\
[server]
listen = {json.dumps(listen)}

[database]
url = {json.dumps(f"sqlite:///{home / 'console.db'}")}

{_broker_section(broker, broker.port, own)}

[log]
format = "console"
"""


def _broker_section(broker: Broker, port: int, own: Credentials) -> str:
    return f"""\
[broker]
url = {json.dumps(f"mqtts://127.0.0.1:{port}")}
ca = {json.dumps(str(broker.ca))}
cert = {json.dumps(str(own.cert))}
key = {json.dumps(str(own.key))}"""
