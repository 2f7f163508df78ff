"""Ways to the broker: WebSocket, proxies that others wrote, lines that go dead without a word."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
from tests.integration.test_link import DEVICE, box, until

from nexus_agent.config import BrokerSection
from nexus_agent.protocol import Stream
from nexus_agent.sync.link import LinkState
from nexus_agent.transport import Dialer, TransportError
from nexus_console.config import BrokerSettings
from nexus_console.ingest import Inbox
from nexus_console.mqtt import Link
from nexus_demo.broker import find_mosquitto
from nexus_demo.certs import Authority
from nexus_demo.peer import connected
from nexus_demo.processes import Process, free_port

pytestmark = pytest.mark.skipif(find_mosquitto() is None, reason="the machine has no mosquitto")

# It takes uvloop where there is one, and expects a loop that newer versions no longer make.
PPROXY = """\
import asyncio, sys
sys.modules["uvloop"] = None
asyncio.set_event_loop(asyncio.new_event_loop())
from pproxy.server import main
main()
"""
LOGIN = "shop:se%40cret"


class Ways:
    """A mosquitto that listens for MQTT and for WebSocket, both over TLS."""

    def __init__(self, ca: Path, mqtt: int, web: int) -> None:
        self.ca = ca
        self.mqtt = f"mqtts://127.0.0.1:{mqtt}"
        self.mqtt_port = mqtt
        self.web = f"wss://127.0.0.1:{web}/mqtt"

    def section(self, url: str, proxy: str | None = None, **more: object) -> BrokerSection:
        return BrokerSection.model_validate({"url": url, "ca": self.ca, "proxy": proxy, **more})


@asynccontextmanager
async def running(name: str, command: list[str], port: int, log: Path) -> AsyncIterator[None]:
    process = Process(name, command, log)
    await process.start()
    try:
        await until(lambda: _listens(process, port))
        yield
    finally:
        await process.stop()


def _listens(process: Process, port: int) -> bool:
    process.check()
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
async def ways(tmp_path: Path, authority: Authority) -> AsyncIterator[Ways]:
    server = authority.server("broker")
    mqtt, web = free_port(), free_port()
    tls = f"cafile {authority.ca}\ncertfile {server.cert}\nkeyfile {server.key}\n"
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(
        f"user root\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest stderr\n"
        f"listener {mqtt} 127.0.0.1\n{tls}"
        f"listener {web} 127.0.0.1\nprotocol websockets\n{tls}"
    )
    command = [str(find_mosquitto()), "-c", str(conf)]
    async with running("mosquitto", command, web, tmp_path / "mosquitto.log"):
        yield Ways(authority.ca, mqtt, web)


@pytest.fixture
async def http_proxy(tmp_path: Path) -> AsyncIterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--basic-auth", "shop:se@cret"]
    command += ["--data-dir", str(tmp_path / "proxy")]
    async with running("proxy.py", command, port, tmp_path / "proxy.log"):
        yield port


@pytest.fixture
async def socks_proxy(tmp_path: Path) -> AsyncIterator[int]:
    port = free_port()
    listen = f"socks5://127.0.0.1:{port}#shop:se@cret"
    command = [sys.executable, "-c", PPROXY, "-l", listen]
    async with running("pproxy", command, port, tmp_path / "pproxy.log"):
        yield port


async def delivers(state_dir: Path, ways: Ways, section: BrokerSection) -> None:
    """Small and large messages go up, and acknowledgements come down."""
    here = ways.section(ways.mqtt)
    async with connected(here) as peer, box(state_dir, section) as agent:
        await agent.emit(*range(100))
        await agent.emit(*(f"{n:050}" * 20 for n in range(2000)), stream=Stream.TELEMETRY)
        await until(lambda: agent.outbox.position(Stream.EVENT) == (100, 101))
        await until(lambda: agent.outbox.position(Stream.TELEMETRY) == (2000, 2001))
        assert len(peer.of(DEVICE, "test.value")) == 2100


async def test_events_arrive_over_websocket(state_dir: Path, ways: Ways) -> None:
    await delivers(state_dir, ways, ways.section(ways.web))


async def test_events_arrive_through_an_http_proxy(
    state_dir: Path, ways: Ways, http_proxy: int
) -> None:
    proxy = f"http://{LOGIN}@127.0.0.1:{http_proxy}"
    await delivers(state_dir, ways, ways.section(ways.mqtt, proxy))


async def test_events_arrive_through_a_socks_proxy(
    state_dir: Path, ways: Ways, socks_proxy: int
) -> None:
    proxy = f"socks5://{LOGIN}@127.0.0.1:{socks_proxy}"
    await delivers(state_dir, ways, ways.section(ways.mqtt, proxy))


async def test_events_arrive_over_websocket_through_an_http_proxy(
    state_dir: Path, ways: Ways, http_proxy: int
) -> None:
    proxy = f"http://{LOGIN}@127.0.0.1:{http_proxy}"
    await delivers(state_dir, ways, ways.section(ways.web, proxy))


async def error_of(state_dir: Path, section: BrokerSection) -> str:
    async with box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.WAITING)
        return agent.link.error


@pytest.mark.parametrize("login", ["", "shop:wrong-secret@"])
async def test_an_http_proxy_that_wants_other_credentials_is_named(
    state_dir: Path, ways: Ways, http_proxy: int, login: str
) -> None:
    proxy = f"http://{login}127.0.0.1:{http_proxy}"
    error = await error_of(state_dir, ways.section(ways.mqtt, proxy))
    assert error.startswith(f"the proxy http://127.0.0.1:{http_proxy} refused: 407 ")
    assert "wrong-secret" not in error


async def test_a_socks_proxy_that_wants_other_credentials_is_named(
    state_dir: Path, ways: Ways, socks_proxy: int
) -> None:
    proxy = f"socks5://shop:wrong-secret@127.0.0.1:{socks_proxy}"
    error = await error_of(state_dir, ways.section(ways.mqtt, proxy))
    assert error.startswith(f"the proxy socks5://127.0.0.1:{socks_proxy} ")
    assert "wrong-secret" not in error


async def test_a_name_that_is_not_there_is_named(state_dir: Path, ways: Ways) -> None:
    error = await error_of(state_dir, ways.section("mqtts://broker.invalid"))
    assert error.startswith("cannot resolve broker.invalid: ")


async def test_a_proxy_that_is_not_there_is_named(state_dir: Path, ways: Ways) -> None:
    port = free_port()
    error = await error_of(state_dir, ways.section(ways.mqtt, f"http://{LOGIN}@127.0.0.1:{port}"))
    assert error == f"cannot reach the proxy http://127.0.0.1:{port}: Connection refused"


async def test_tls_is_checked_against_the_brokers_own_name_behind_a_proxy(
    state_dir: Path, ways: Ways, http_proxy: int
) -> None:
    url = f"mqtts://127.0.0.2:{ways.mqtt_port}"
    listener = await asyncio.start_server(
        lambda reader, writer: _carry(reader, writer, ways.mqtt_port), "127.0.0.2", ways.mqtt_port
    )
    async with listener:
        proxy = f"http://{LOGIN}@127.0.0.1:{http_proxy}"
        error = await error_of(state_dir, ways.section(url, proxy))
    assert "certificate verify failed" in error
    assert "127.0.0.2" in error


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_refused_upgrade_tells_the_http_status(
    state_dir: Path, ways: Ways, authority: Authority
) -> None:
    server = authority.server("web")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(server.cert, server.key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port, ssl=tls):
        error = await error_of(state_dir, ways.section(f"wss://127.0.0.1:{port}/x"))
    assert error == "127.0.0.1 refused the WebSocket upgrade of /x: HTTP 404 Not Found"


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections, in the kernel, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_never_answers_is_given_up(authority: Authority, scheme: str) -> None:
    with silent_server() as port:
        section = BrokerSection.model_validate(
            {"url": "mqtts://broker", "ca": authority.ca, "proxy": f"{scheme}://127.0.0.1:{port}"}
        )
        dialer = Dialer(section, section.tls_context(), within=0.3)
        with pytest.raises(
            TransportError, match=f"the proxy {scheme}://.* did not answer: no answer"
        ):
            dialer.open()


@pytest.mark.parametrize("proxy", [None, "http", "socks5"])
def test_an_abort_ends_the_waiting_for_an_answer(authority: Authority, proxy: str | None) -> None:
    with silent_server() as port:
        section = BrokerSection.model_validate(
            {
                "url": f"wss://127.0.0.1:{port}",
                "ca": authority.ca,
                "proxy": proxy and f"{proxy}://127.0.0.1:{port}",
            }
        )
        dialer = Dialer(section, section.tls_context())
        failures: list[Exception] = []

        def dial() -> None:
            try:
                dialer.open()
            except TransportError as error:
                failures.append(error)

        thread = threading.Thread(target=dial)
        thread.start()
        dialer.abort()
        thread.join(5)
        assert failures


@contextmanager
def console(section: BrokerSection) -> Iterator[Link]:
    settings = BrokerSettings(url=section.url, ca=section.ca, proxy=section.proxy)
    link = Link(settings, settings.tls_context(), Inbox())
    thread = threading.Thread(target=link.run)
    thread.start()
    yield link
    link.stop()
    thread.join(5)
    assert not thread.is_alive(), "the stop took more than 5 s"


@pytest.mark.parametrize("url", ["mqtt", "web"])
async def test_the_console_connects_through_a_proxy(ways: Ways, http_proxy: int, url: str) -> None:
    proxy = f"http://{LOGIN}@127.0.0.1:{http_proxy}"
    with console(ways.section(getattr(ways, url), proxy)) as link:
        await until(lambda: link.state == "connected")


async def test_the_console_connects_over_websocket(ways: Ways) -> None:
    with console(ways.section(ways.web)) as link:
        await until(lambda: link.state == "connected")


async def test_the_console_names_a_proxy_that_refuses(ways: Ways, http_proxy: int) -> None:
    with console(ways.section(ways.mqtt, f"http://127.0.0.1:{http_proxy}")) as link:
        await until(lambda: link.state == "waiting")
        assert "refused: 407 " in (link.error or "")


def test_the_console_stops_while_a_proxy_is_silent(authority: Authority) -> None:
    with silent_server() as port:
        section = BrokerSection.model_validate(
            {"url": "mqtts://broker", "ca": authority.ca, "proxy": f"http://127.0.0.1:{port}"}
        )
        with console(section) as link:
            assert link.state == "connecting"


class Hole:
    """A relay whose connections can go dead: both ends stay open, nothing is carried."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._pumps: set[asyncio.Task[None]] = set()

    def go_dead(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        self._pumps.clear()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        writers: list[asyncio.StreamWriter] = []
        async with asyncio.TaskGroup() as group:

            async def carry(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
                far, forth = await asyncio.open_connection("127.0.0.1", self._target)
                writers.extend((back, forth))
                self._pumps |= {
                    group.create_task(_forward(near, forth), name="hole:up"),
                    group.create_task(_forward(far, back), name="hole:down"),
                }

            server = await asyncio.start_server(carry, "127.0.0.1", self.port)
            try:
                yield
            finally:
                server.close()
                self.go_dead()
                for writer in writers:
                    writer.transport.abort()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


async def test_a_dead_line_is_found_and_replaced(state_dir: Path, ways: Ways) -> None:
    hole = Hole(ways.mqtt_port)
    section = ways.section(f"mqtts://127.0.0.1:{hole.port}", keepalive_s=5)
    async with hole.open(), connected(ways.section(ways.mqtt)), box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        hole.go_dead()
        dead, cpu = time.monotonic(), time.process_time()
        await agent.emit("into the hole")
        await until(lambda: agent.link.state is not LinkState.CONNECTED)
        found_after = time.monotonic() - dead
        assert "does not answer a ping" in agent.link.error
        assert found_after <= 1.5 * 5 + 0.5, "half a second for a busy machine"
        await until(lambda: agent.outbox.position(Stream.EVENT) == (1, 2))
        assert time.monotonic() - dead <= 15
        assert time.process_time() - cpu < 0.2 * found_after, "somebody turned in circles"


async def test_the_console_finds_a_dead_line(ways: Ways) -> None:
    hole = Hole(ways.mqtt_port)
    settings = BrokerSettings(url=f"mqtts://127.0.0.1:{hole.port}", ca=ways.ca, keepalive_s=5)
    link = Link(settings, settings.tls_context(), Inbox())
    thread = threading.Thread(target=link.run)
    async with hole.open():
        thread.start()
        await until(lambda: link.state == "connected")
        hole.go_dead()
        dead = time.monotonic()
        await until(lambda: link.state != "connected")
        assert time.monotonic() - dead <= 1.5 * 5 + 0.5
        assert "does not answer a ping" in (link.error or "")
        await until(lambda: link.state == "connected")
        link.stop()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive()
