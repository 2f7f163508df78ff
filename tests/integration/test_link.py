"""Outbox, sender and link against a real broker and a peer that acknowledges."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from nexus_agent.broker import BrokerAddress
from nexus_agent.clock import Clock
from nexus_agent.config import BrokerSection, LinkSection
from nexus_agent.protocol import Ack, Presence, Stream, Topic
from nexus_agent.store import ledger
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id
from nexus_agent.sync.link import Link, LinkState
from nexus_agent.sync.policy import Policy
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic
from nexus_demo.broker import Broker
from nexus_demo.peer import connected
from nexus_demo.relay import Relay

DEVICE = "box-1"
TELEMETRY = Stream.TELEMETRY


class Box:
    """The part of an agent that this suite is about."""

    def __init__(
        self, outbox: Outbox, link: Link, commands: list[bytes], database: Database
    ) -> None:
        self.database = database
        self.outbox = outbox
        self.link = link
        self.commands = commands

    def all_released(self) -> bool:
        released, newest = self.outbox.released, self.outbox.newest
        return all(released(stream) == newest(stream) for stream in Stream)

    async def emit(self, *values: object, stream: Stream = Stream.EVENT) -> None:
        await self.outbox.emit("test", [("test.value", value) for value in values], stream)


@asynccontextmanager
async def box(
    state_dir: Path,
    broker: BrokerSection,
    patience: float = 10.0,
    rules: LinkSection | None = None,
) -> AsyncIterator[Box]:
    clock, topic = Clock(), Topic(DEVICE)
    database = Database(state_dir)
    traffic = Traffic(database, clock, Policy(rules or LinkSection()))
    await database.open()
    outbox = Outbox(database, DEVICE, clock)
    await outbox.open()
    commands: list[bytes] = []

    async def birth(session: str) -> Presence:
        return Presence(online=True, session=session, epoch=outbox.epoch)

    sender = Sender(outbox, topic, broker.ack, patience, traffic)
    link = Link(broker, broker, topic, clock, sender, birth, commands.append)
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="outbox")
        running = group.create_task(link.run(), name="link")
        yield Box(outbox, link, commands, database)
        running.cancel()
        outbox.close()
    await database.close()


async def until(condition: Callable[[], object], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that comes back in a test is not waited for by minutes."""
    monkeypatch.setattr("nexus_agent.sync.backoff.CAP_S", 1.0)


@pytest.fixture
def section(address: BrokerAddress) -> BrokerSection:
    return BrokerSection(url=address.url, ca=address.ca)


async def test_events_arrive_in_order_and_are_released(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as peer, box(state_dir, section) as agent:
        for n in range(20):
            await agent.emit(n)
        await until(lambda: agent.outbox.position(Stream.EVENT) == (20, 21))
        assert [event.data for event in peer.of(DEVICE, "test.value")] == list(range(20))


async def test_what_was_emitted_offline_arrives_later(
    state_dir: Path, section: BrokerSection, broker: Broker
) -> None:
    await broker.stop()
    async with box(state_dir, section) as agent:
        await agent.emit(*range(500), stream=Stream.TELEMETRY)
        await broker.start()
        async with connected(section) as peer:
            await until(lambda: agent.outbox.position(Stream.TELEMETRY) == (500, 501))
            assert len(peer.of(DEVICE, "test.value")) == 500


async def test_nothing_is_released_that_only_the_broker_has(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as peer, box(state_dir, section) as agent:
        peer.acknowledging = False
        await agent.emit(1)
        await peer.until(lambda: peer.of(DEVICE, "test.value"))
        assert agent.outbox.position(Stream.EVENT) == (0, 2)


async def test_an_unacknowledged_event_is_sent_again_until_it_is(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as peer, box(state_dir, section, patience=0.2) as agent:
        peer.acknowledging = False
        await agent.emit(1)
        await peer.until(lambda: peer.duplicates >= 1)
        peer.acknowledging = True
        await until(lambda: agent.outbox.position(Stream.EVENT) == (1, 2))


async def test_with_the_brokers_word_as_acknowledgement_no_console_is_needed(
    state_dir: Path, section: BrokerSection
) -> None:
    alone = section.model_copy(update={"ack": "broker"})
    async with box(state_dir, alone) as agent:
        await agent.emit(1, 2, 3)
        await until(lambda: agent.outbox.position(Stream.EVENT) == (3, 4))


async def test_an_alert_overtakes_a_backlog(
    state_dir: Path, section: BrokerSection, broker: Broker
) -> None:
    await broker.stop()
    async with box(state_dir, section) as agent:
        for _ in range(20):
            await agent.emit(*("x" * 1000 for _ in range(1000)), stream=Stream.TELEMETRY)
        await agent.emit("fire", stream=Stream.ALERT)
        await broker.start()
        async with connected(section) as peer:
            await peer.until(lambda: peer.marks.get((DEVICE, 1, Stream.ALERT)))
            assert peer.marks.get((DEVICE, 1, Stream.TELEMETRY), 0) < 20_000


async def test_an_alert_overtakes_what_a_slow_line_carries(
    state_dir: Path, section: BrokerSection, broker: Broker
) -> None:
    relay = Relay(broker.port, up=64 * 1024)
    await relay.open()
    slow = section.model_copy(update={"url": f"mqtts://127.0.0.1:{relay.port}"})
    async with connected(section) as peer, box(state_dir, slow) as agent:
        for _ in range(10):
            await agent.emit(*(os.urandom(1000).hex() for _ in range(1000)), stream=TELEMETRY)
        await peer.until(lambda: peer.payload_bytes > 200_000)
        waits: list[float] = []
        for _ in range(3):
            started = asyncio.get_running_loop().time()
            await agent.emit("fire", stream=Stream.ALERT)
            await peer.until(lambda: peer.marks.get((DEVICE, 1, Stream.ALERT)) == len(waits) + 1)
            waits.append(asyncio.get_running_loop().time() - started)
        assert max(waits) < 2.0, waits
        assert agent.outbox.position(TELEMETRY)[0] < 10_000
        assert peer.duplicates == 0
    await relay.cut()


async def test_what_the_console_lost_is_sent_again_and_the_rest_declared(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as first, box(state_dir, section) as agent:
        for n in range(4):
            await agent.emit(n)
            await until(agent.all_released)
        assert len(first.of(DEVICE, "test.value")) == 4
        await agent.database.run(
            lambda c: c.execute("DELETE FROM segment_event WHERE last IN (2, 4)").rowcount
        )
        async with connected(section) as restored:
            want = Ack(epoch=1, stream=Stream.EVENT, seq=0, want=[(1, 2), (2, 4)])
            for _ in range(3):
                await restored.acknowledge(DEVICE, want)
            await restored.until(lambda: len(restored.of(DEVICE, "test.value")) == 2)
            asked = "SELECT first, last, cause FROM loss ORDER BY first"
            async with asyncio.timeout(10):
                while len(lost := await agent.database.read(asked)) < 2:
                    await asyncio.sleep(0.01)
            assert lost == [(2, 2, ledger.GONE), (4, 4, ledger.GONE)]
            assert agent.outbox.position(Stream.EVENT) == (4, 5)
            assert restored.duplicates == 0


async def test_a_range_that_was_never_sealed_is_refused(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as peer, box(state_dir, section) as agent:
        peer.acknowledging = False
        await agent.emit(1, 2)
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        tried: list[object] = []
        for beyond in ([(1, 3)], [(2, 1)]):
            tried.append(beyond)
            await peer.acknowledge(DEVICE, Ack(epoch=1, stream=Stream.EVENT, seq=2, want=beyond))
            await until(lambda: agent.outbox.refused_acknowledgements == len(tried))
        assert agent.outbox.position(Stream.EVENT) == (0, 3)


async def test_a_new_epoch_is_told_at_once_and_the_old_one_is_sent_to_its_end(
    state_dir: Path, section: BrokerSection
) -> None:
    async with connected(section) as peer, box(state_dir, section, patience=0.5) as agent:
        peer.acknowledging = False
        await agent.emit("old")
        await peer.until(lambda: peer.of(DEVICE, "test.value"))
        order = Ack(epoch=1, stream=Stream.EVENT, seq=0, renew="a cloned disk", above=6)
        await peer.acknowledge(DEVICE, order)
        await peer.until(lambda: peer.presence[-1][1].epoch == 7)
        assert peer.presence[-1][1].session == peer.presence[0][1].session
        await agent.emit("new")
        peer.acknowledging = True
        await until(lambda: agent.outbox.released(Stream.EVENT) == row_id(7, 1))
        assert [e.data for e in peer.of(DEVICE, "test.value")] == ["old", "new"]
        await peer.acknowledge(DEVICE, order)
        await agent.emit("newer")
        await until(lambda: agent.outbox.released(Stream.EVENT) == row_id(7, 2))


async def test_a_console_that_comes_back_gets_at_once_what_it_missed(
    state_dir: Path, section: BrokerSection
) -> None:
    async with box(state_dir, section, patience=600) as agent:
        await agent.emit(1, stream=TELEMETRY)
        await agent.emit(2)
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        async with connected(section) as peer, asyncio.timeout(10):
            hello = Ack(epoch=1, stream=Stream.LOG, seq=0)
            while agent.outbox.position(TELEMETRY)[0] + agent.outbox.position(Stream.EVENT)[0] < 2:
                await peer.acknowledge(DEVICE, hello)
                await asyncio.sleep(0.05)
            assert peer.duplicates == 0


async def test_on_a_metered_line_only_alerts_go(state_dir: Path, section: BrokerSection) -> None:
    rules = LinkSection(metered=True)
    async with connected(section) as peer, box(state_dir, section, rules=rules) as agent:
        await agent.emit("waits")
        await agent.emit("goes", stream=Stream.ALERT)
        await until(lambda: agent.outbox.position(Stream.ALERT) == (1, 2))
        assert [e.data for e in peer.of(DEVICE, "test.value")] == ["goes"]


async def test_it_stops_although_its_session_breaks_at_that_moment(
    state_dir: Path, section: BrokerSection
) -> None:
    async with asyncio.timeout(20), box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        client = agent.link._client
        assert client is not None
        await agent.link.farewell("stopped")
        client._disconnected.set_exception(aiomqtt.MqttError("the line is torn"))
        await asyncio.sleep(0)


async def test_the_birth_is_retained_and_the_farewell_replaces_it(
    state_dir: Path, section: BrokerSection
) -> None:
    async with box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        async with connected(section) as peer:
            await peer.until(lambda: peer.presence)
            await agent.link.farewell("stopped")
            await peer.until(lambda: len(peer.presence) == 2)
            birth, farewell = (document for _, document in peer.presence)
            assert (birth.online, farewell.online, farewell.reason) == (True, False, "stopped")
            assert birth.session == farewell.session


async def test_every_connection_is_a_session_of_its_own(
    state_dir: Path, section: BrokerSection, broker: Broker
) -> None:
    async with box(state_dir, section) as agent:
        sessions: set[str] = set()
        for _ in range(2):
            await until(lambda: agent.link.state is LinkState.CONNECTED)
            async with connected(section) as peer:
                await peer.until(lambda: peer.presence)
                sessions.add(peer.presence[0][1].session)
            await broker.kill()
            await until(lambda: agent.link.state is not LinkState.CONNECTED)
            await broker.start()
        assert len(sessions) == 2


async def test_a_command_comes_down(state_dir: Path, section: BrokerSection) -> None:
    async with connected(section) as peer, box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        await peer.send(peer.make_command(DEVICE, "obd.scan"))
        await until(lambda: agent.commands)


async def test_the_link_comes_back_after_the_broker_was_killed(
    state_dir: Path, section: BrokerSection, broker: Broker
) -> None:
    async with box(state_dir, section) as agent:
        await until(lambda: agent.link.state is LinkState.CONNECTED)
        await broker.kill()
        await until(lambda: agent.link.state is LinkState.WAITING)
        await agent.emit("while it was away")
        await broker.start()
        async with connected(section) as peer:
            await until(lambda: agent.outbox.position(Stream.EVENT) == (1, 2), within=40)
            assert [e.data for e in peer.of(DEVICE, "test.value")] == ["while it was away"]


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_with_another_ca_is_not_trusted(
    state_dir: Path, section: BrokerSection
) -> None:
    stranger = section.model_copy(update={"ca": None})
    async with box(state_dir, stranger) as agent:
        await until(lambda: agent.link.state is LinkState.WAITING)
        assert "certificate verify failed" in agent.link.error
    gc.collect()
