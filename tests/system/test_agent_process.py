"""The agent as its service manager sees it: a process, its signals, its exit code, its file.

The plugins that do wrong are a distribution of their own, `agent_plugins`, on the agent's path.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nexus_agent import __version__
from nexus_agent.broker import BrokerAddress
from nexus_agent.cli.client import Agent
from nexus_agent.cli.errors import AgentError
from nexus_agent.protocol import Event, Stream, open_segment
from nexus_agent.store import segments
from nexus_demo.broker import Broker
from nexus_demo.certs import Authority
from nexus_demo.peer import Peer, connected
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import NotYet, until

PLUGINS = Path(__file__).parent / "agent_plugins"
STOP_S = 5.0
"""The whole stop takes at most this long (DESIGN)."""
KILLS = 8
HANDED_OVER = 2500
"""Events of the plugin `parting`."""


class Box:
    """One agent's process with its settings, its state and its notes in one folder."""

    def __init__(self, folder: Path, address: BrokerAddress, **environ: str) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "agent.toml"
        self.state_dir = folder / "state"
        self.socket = folder / "agent.sock"
        self.mark = folder / "mark"
        self.file.write_text(
            f"""\
agent = {{id = "box-1", state_dir = "{self.state_dir}", socket = "{self.socket}"}}
broker = {{url = "{address.url}", ca = "{address.ca}"}}
""",
            "utf-8",
        )
        command = (sys.executable, "-m", "nexus_agent", "run", "--config", self.file)
        self.environ = {**os.environ, "PYTHONPATH": str(PLUGINS), **environ}
        self.process = Process("agent", command, folder / "agent.log", self.environ)

    def enable(self, *plugins: str) -> Box:
        with self.file.open("a", encoding="utf-8") as file:
            for name in plugins:
                file.write(f'[plugins.{name}]\nisolation = "task"\nmark = "{self.mark}"\n')
        return self

    async def until(self, what: str, condition: Callable[[dict[str, Any]], Any]) -> None:
        """Wait until the agent's status fulfils *condition*."""

        async def check() -> None:
            self.process.check()
            try:
                answer = await asyncio.to_thread(Agent(str(self.socket)).get, "/v1/status")
            except AgentError as error:
                raise NotYet(str(error)) from None
            status = json.loads(answer)
            if not condition(status):
                raise NotYet(f"{status}")

        await until(what, check, within=20, every=0.05)

    async def start(self) -> None:
        """Start it and return once it answers."""
        await self.process.start()
        await self.until("the agent answers", lambda status: status)

    async def connect(self) -> None:
        await self.start()
        await self.until("connected", lambda status: status["broker"]["state"] == "connected")

    async def marked(self) -> None:
        """Return once a plugin is at its work."""

        async def check() -> None:
            self.process.check()
            if not self.mark.exists():
                raise NotYet(self.process.tail())

        await until("the plugin is at its work", check, within=20, every=0.02)

    async def assert_stops(self) -> None:
        """SIGTERM ends it in time and with exit code 0."""
        began = time.monotonic()
        code = await self.process.stop()
        assert (code, time.monotonic() - began < STOP_S) == (0, True), self.process.tail()

    def stored(self, stream: Stream) -> list[Event]:
        """Every event in the database, read beside the agent or after it."""
        uri = f"{(self.state_dir / 'agent.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute(segments.NEXT[stream], (0, 1_000_000)).fetchall()
        return [event for row in rows for event in open_segment(segments.from_row(stream, row))]


@pytest.fixture
def nowhere(authority: Authority) -> BrokerAddress:
    """The address of a broker that is not there."""
    return BrokerAddress(url=f"mqtts://127.0.0.1:{free_port()}", ca=authority.ca)


@pytest.fixture
async def box(tmp_path: Path, nowhere: BrokerAddress) -> AsyncIterator[Box]:
    """An agent whose broker is absent."""
    box = Box(tmp_path / "box", nowhere)
    yield box
    await box.process.kill()


@pytest.fixture
async def online(tmp_path: Path, address: BrokerAddress) -> AsyncIterator[Box]:
    """An agent whose broker is there."""
    box = Box(tmp_path / "box", address)
    yield box
    await box.process.kill()


@contextmanager
def notify_socket(path: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """Listen as systemd does; the value is a function that receives one message, parsed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)

        def receive() -> dict[str, str]:
            lines = manager.recv(4096).decode().splitlines()
            return dict(line.split("=", 1) for line in lines)

        yield receive


# -- the service manager -------------------------------------------------------------------------


async def test_the_service_manager_is_told_everything(
    tmp_path: Path, nowhere: BrokerAddress
) -> None:
    path = tmp_path / "notify"
    box = Box(tmp_path / "box", nowhere, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000")
    with notify_socket(path) as receive:
        await box.process.start()
        assert await asyncio.to_thread(receive) == {"READY": "1", "STATUS": "Ready"}
        assert box.socket.is_socket(), "ready means that people can ask"

        began = time.monotonic()
        beats = [await asyncio.to_thread(receive) for _ in range(5)]
        assert {beat["WATCHDOG"] for beat in beats} == {"1"}
        assert beats[-1]["STATUS"].startswith("Broker: ")
        assert time.monotonic() - began < 5 * 0.2, "twice as often as the watchdog waits"

        stop = asyncio.to_thread(_receive_until, receive, "STOPPING")
        await box.assert_stops()
        assert await stop == {"STOPPING": "1", "STATUS": "Stopping"}


def _receive_until(receive: Callable[[], dict[str, str]], key: str) -> dict[str, str]:
    while key not in (message := receive()):
        pass
    return message


# -- SIGTERM -------------------------------------------------------------------------------------


async def test_it_stops_while_the_broker_is_absent(box: Box) -> None:
    await box.start()
    await box.assert_stops()
    assert not box.socket.exists()


async def test_it_stops_while_it_is_connected_and_says_goodbye(
    online: Box, address: BrokerAddress
) -> None:
    async with connected(address) as peer:
        await online.connect()
        await online.assert_stops()
        await peer.until(lambda: peer.presence and not peer.presence[-1][1].online)
        assert peer.presence[-1][1].reason == "stopped"


async def test_it_stops_under_load(online: Box, address: BrokerAddress) -> None:
    online.enable("load")
    async with connected(address) as peer:
        await online.connect()
        await peer.until(lambda: len(peer.of("box-1", "load.number")) > 500)
        await online.assert_stops()
        noted = len(online.mark.read_bytes().splitlines())
        found = online.stored(Stream.EVENT) + online.stored(Stream.TELEMETRY)
        assert len([e for e in found if e.type == "load.number"]) >= noted > 500


async def test_it_stops_while_a_tls_handshake_hangs(tmp_path: Path, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mqtts://127.0.0.1:{silent.getsockname()[1]}"
        box = Box(tmp_path / "box", BrokerAddress(url=url, ca=authority.ca))
        await box.start()
        silent.settimeout(20)
        caller, _ = await asyncio.to_thread(silent.accept)
        with caller:
            await box.assert_stops()


async def test_it_stops_although_a_plugin_ignores_its_cancellation(box: Box) -> None:
    await box.enable("stubborn").start()
    await box.marked()
    await box.assert_stops()


async def test_it_stops_although_a_plugin_is_in_a_blocking_call(box: Box) -> None:
    await box.enable("blocking").start()
    await box.marked()
    await box.assert_stops()


async def test_a_service_that_dies_ends_it_loudly_whatever_a_plugin_does(box: Box) -> None:
    box.enable("stubborn")
    program = (
        "import asyncio, pathlib, sys\n"
        "from nexus_agent import __main__, app\n"
        "async def die(self):\n"
        "    while not pathlib.Path(sys.argv[2]).exists(): await asyncio.sleep(0.05)\n"
        "    raise RuntimeError('the history is gone')\n"
        "app.Housekeeper.run = die\n"
        "__main__.main(['run', '--config', sys.argv[1]])"
    )
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(box.file), str(box.mark)),
        env=box.environ,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, said = await agent.communicate()
    assert agent.returncode == 1
    assert b"the history is gone" in said


@pytest.mark.parametrize("plugins", [(), ("stubborn",)], ids=["alone", "with-a-stubborn-plugin"])
async def test_it_stops_although_the_broker_stands_still(
    online: Box, broker: Broker, plugins: tuple[str, ...]
) -> None:
    await online.enable(*plugins).connect()
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        await online.assert_stops()
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("company", [(), ("stubborn", "blocking")], ids=["alone", "in-bad-company"])
async def test_what_was_handed_over_is_stored_before_it_ends(
    box: Box, company: tuple[str, ...]
) -> None:
    await box.enable("parting", *company).process.start()
    await box.marked()
    await box.assert_stops()
    handed = [e.data for e in box.stored(Stream.TELEMETRY) if e.type == "parting.event"]
    assert handed == list(range(HANDED_OVER))


# -- SIGKILL -------------------------------------------------------------------------------------


async def test_nothing_promised_is_lost_by_kills_at_random_moments(
    online: Box, address: BrokerAddress
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    online.enable("load")
    async with connected(address) as peer:
        for life in range(KILLS):
            await online.process.start()
            # Every other one is at its work when it is killed, however slow the machine is.
            await asyncio.sleep(moments.uniform(0.3, 3.0))
            if life % 2:
                await at_work(online)
            await online.process.kill()
        quiet = online.file.read_text("utf-8").replace("mark =", "enabled = false\nmark =")
        online.file.write_text(quiet, "utf-8")
        await online.connect()
        for stream in (Stream.EVENT, Stream.TELEMETRY):
            await _reached(peer, stream, len(online.stored(stream)))
        await online.assert_stops()
        _assert_complete(peer, _noted(online.mark))


async def at_work(box: Box) -> None:
    """Return once the load of this process has been promised something."""
    pid = str(box.process.pid)

    async def look() -> None:
        notes = box.mark.read_text("ascii").split("\n") if box.mark.exists() else []
        if not any(line.startswith(f"{pid} ") for line in notes):
            raise NotYet(box.process.tail())

    await until("it is at its work", look, within=40, every=0.05)


async def _reached(peer: Peer, stream: Stream, seq: int) -> None:
    """Return once nothing is missing at the peer up to *seq*."""
    await peer.until(lambda: peer.marks.get(("box-1", 1, stream), 0) == seq, within=40)


def _noted(mark: Path) -> dict[tuple[int, int], int]:
    """The last number that each (process, lane) was promised."""
    promised: dict[tuple[int, int], int] = {}
    for line in mark.read_text("ascii").splitlines():
        process, lane, number = map(int, line.split())
        promised[process, lane] = number
    return promised


def _assert_complete(peer: Peer, noted: dict[tuple[int, int], int]) -> None:
    arrived: dict[tuple[int, int], list[int]] = defaultdict(list)
    for event in peer.of("box-1", "load.number"):
        process, lane, number = event.data
        arrived[process, lane].append(number)
    assert len({process for process, _ in noted}) > KILLS // 4, "some runs came to their work"
    for key, last in noted.items():
        assert arrived[key] == list(range(1, len(arrived[key]) + 1)), "in order, each once"
        # At most the one that was stored while the process had not yet heard of it.
        assert last <= len(arrived[key]) <= last + 1


# -- what stands in its way ----------------------------------------------------------------------


async def run_out(box: Box) -> tuple[int, list[str]]:
    """Run an agent that ends by itself: its exit code and what it printed."""
    await box.process.start()
    async with asyncio.timeout(20):
        while box.process.running:
            await asyncio.sleep(0.02)
    return await box.process.stop() or 0, box.process.log.read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lgo]", "lgo: unknown key; did you mean 'log'?"),
        ("broker = 3", "is not TOML"),
    ],
)
async def test_wrong_settings_are_one_line_and_exit_code_2(
    box: Box, text: str, message: str
) -> None:
    with box.file.open("a", encoding="utf-8") as file:
        file.write(text)
    code, lines = await run_out(box)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"nexus-agent: {box.file}: ")
    assert message in lines[0]
    assert not box.state_dir.exists()


@pytest.mark.parametrize("isolation", ["task", "process"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[plugins.hots]", "plugins.hots: no plugin 'hots' is installed; did you mean 'host'?"),
        ("[plugins.host]\ninterval = 3", "plugins.host.interval: unknown key; did you mean"),
        ("[plugins.load]", "plugins.load.mark: is missing"),
        ("[plugins.broken]", "does not load: ZeroDivisionError: a bug at the top of a module"),
        ("[plugins.nameless]", "plugin 'nameless' calls itself None"),
    ],
)
async def test_a_plugin_that_cannot_run_is_no_reason_not_to_start(
    box: Box, isolation: str, text: str, message: str
) -> None:
    with box.file.open("a", encoding="utf-8") as file:
        name, _, keys = text.partition("\n")
        file.write(f'{name}\nisolation = "{isolation}"\n{keys}')
    await box.start()

    def told(status: dict[str, Any]) -> bool:
        return any(message in problem["text"] for problem in status["health"])

    await box.until("told", told)
    await box.assert_stops()
    (alert,) = [e.data for e in box.stored(Stream.ALERT) if e.type == "plugin.state"]
    assert (alert["state"], message in alert["reason"]) == ("failed", True)


async def test_a_broken_plugin_that_is_switched_off_is_in_nobodys_way(box: Box) -> None:
    with box.file.open("a", encoding="utf-8") as file:
        file.write("[plugins.broken]\nenabled = false\nkeys_are_not_looked_at = 1")
    await box.start()
    await box.until("disabled", lambda status: status["plugins"] == {"broken": "disabled"})


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("NEXUS_AGENT__SOCKET", "another agent runs on this state_dir"),
        ("NEXUS_AGENT__STATE_DIR", "another agent listens there"),
    ],
    ids=["same-state", "same-socket"],
)
async def test_a_second_agent_says_in_one_line_what_it_shares(
    box: Box, nowhere: BrokerAddress, variable: str, message: str
) -> None:
    await box.start()
    second = Box(box.file.parent, nowhere, **{variable: str(box.file.parent / "other")})
    second.process.log = box.file.parent / "second.log"
    code, lines = await run_out(second)
    errors = [line for line in map(json.loads, lines) if line["level"] == "error"]
    assert (code, len(errors)) == (1, 1), lines
    assert message in errors[0]["error"]
    assert "exception" not in errors[0]
    await box.until("the first goes on", lambda status: status)


def _newer_database(state: Path) -> None:
    with closing(sqlite3.connect(state / "agent.db")) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: (state / "vehicle.key").mkdir(), "cannot be used as vehicle key: "),
        (lambda state: (state / "vehicle.key").write_bytes(b"abc"), "vehicle.key: holds 3 bytes"),
        (_newer_database, "agent.db: is not of this version of the agent: "),
    ],
    ids=["key", "short-key", "newer-database"],
)
async def test_a_state_that_cannot_be_used_is_one_line(
    box: Box, spoil: Callable[[Path], object], message: str
) -> None:
    box.state_dir.mkdir()
    spoil(box.state_dir)
    code, lines = await run_out(box)
    assert (code, len(lines)) == (1, 1), lines
    assert message in json.loads(lines[0])["error"]


async def test_a_plugin_that_gives_up_leaves_the_agent_and_its_neighbour_alone(box: Box) -> None:
    await box.enable("fatal", "blocking").start()
    wanted = {"fatal": "failed", "blocking": "running"}
    await box.until("settled", lambda status: status["plugins"] == wanted)
    await box.assert_stops()
    (alert,) = [e.data for e in box.stored(Stream.ALERT)]
    assert (alert["plugin"], alert["reason"]) == ("fatal", "there is no such port")


async def test_a_plugin_that_breaks_once_is_started_again(box: Box) -> None:
    await box.enable("flaky").start()
    await box.marked()
    await box.until("running", lambda status: status["plugins"] == {"flaky": "running"})
    await box.assert_stops()
    states = [event.data["state"] for event in box.stored(Stream.EVENT)]
    assert states == ["starting", "running", "starting", "running"]
    assert [event.data["state"] for event in box.stored(Stream.ALERT)] == ["backoff"]


async def test_it_says_its_version() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_agent", "--version"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.decode()) == (0, f"nexus-agent, version {__version__}\n")
