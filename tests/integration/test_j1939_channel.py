"""The channel: adapters that come and go, connections that another implementation opens, floods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import can
import pytest
from tests.integration.j1939_truck import Hand, Unit, truck
from tests.integration.slcan_line import slcan_line

from nexus_agent.plugin import FatalError, PluginError
from nexus_agent.testing import RecordingContext, running
from nexus_plugins.j1939 import J1939Plugin
from nexus_plugins.j1939.channel import MAX_FRAMES, Channel
from nexus_plugins.j1939.identifier import DM1, TP_CM, TP_DT, Identifier, Message
from nexus_plugins.j1939.settings import J1939Settings

Context = RecordingContext[J1939Settings]

US = 0xF9
PROPRIETARY = 0x00EF00
"""A group with a destination: those the library sends by RTS and CTS."""
OIL = (100, 1, 5)


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"j1939-{request.node.name}"


def context_for(channel: str, interface: str = "virtual", **given: Any) -> Context:
    return Context(J1939Settings(interface=interface, channel=channel, **given))


async def until(condition: Callable[[], object], within: float = 15.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(channel: str, heard: list[Message]) -> AsyncIterator[Channel]:
    """A channel with our address, that wants the proprietary group too."""
    wanted = frozenset({DM1, PROPRIETARY})
    found = Channel(
        context_for(channel), wanted, lambda now, message: heard.append(message), lambda: None
    )
    found.reassembly.address = US
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.run(), name="channel")
        await until(lambda: found.is_open)
        yield found
        task.cancel()


@pytest.mark.parametrize("size", [9, 100, 1785])
async def test_a_connection_that_another_implementation_opens(channel: str, size: int) -> None:
    data, heard = bytes(n % 251 for n in range(size)), list[Message]()
    async with opened(channel, heard):
        with truck(can.Bus(interface="virtual", channel=channel), Unit(0x80, dtcs=None)) as found:
            await until(found.is_ready)
            found.ecu.send_pgn(0, 0xEF, US, 6, 0x80, bytearray(data))
            await until(lambda: [m for m in heard if m.pgn == PROPRIETARY])
            await until(lambda: not found.ecu.j1939_dll._snd_buffer)

    [message] = [m for m in heard if m.pgn == PROPRIETARY]
    assert (message.source, message.destination, message.data) == (0x80, US, data)


async def test_a_flood_is_dropped_by_the_count_and_no_message_is_made_across_the_gap(
    channel: str,
) -> None:
    heard, extra = list[Message](), 300
    announced = Identifier(TP_CM, 0), b"\x20\x0e\x00\x02\xff" + DM1.to_bytes(3, "little")
    with Hand(channel) as hand:
        async with opened(channel, heard) as found:
            hand.send(*announced)
            hand.send(Identifier(TP_DT, 0), b"\x01" + bytes(7))
            await until(lambda: len(found.reassembly) == 1)
            _flood(found, MAX_FRAMES + extra)
            await until(lambda: len(heard) == MAX_FRAMES)
            hand.send(Identifier(TP_DT, 0), b"\x02" + bytes(7))
            hand.send(Identifier(DM1, 0x55), bytes(8))
            await until(lambda: heard[-1].source == 0x55)

    assert found.dropped == extra
    assert found.reassembly.interrupted == 1
    assert len(heard) == MAX_FRAMES + 1


def _flood(channel: Channel, count: int) -> None:
    """As the pump's thread does while the loop is busy elsewhere."""
    frame = can.Message(arbitration_id=Identifier(DM1, 0x0B).can_id(), data=bytes(8))
    for _ in range(count):
        channel._put(frame)


async def test_what_nobody_wants_is_not_kept_but_its_sender_is_heard(channel: str) -> None:
    heard = list[Message]()
    with Hand(channel) as hand:
        async with opened(channel, heard) as found:
            hand.send(Identifier(0xF004, 0x31), bytes(8))
            await until(lambda: found.is_heard(0x31))

    assert heard == []


async def test_frames_with_short_identifiers_are_not_heard(channel: str) -> None:
    heard = list[Message]()
    with Hand(channel) as hand:
        async with opened(channel, heard) as found:
            short = can.Message(arbitration_id=0x131, is_extended_id=False, data=bytes(8))
            hand.bus.send(short)
            hand.send(Identifier(0xF004, 0x32), bytes(8))
            await until(lambda: found.is_heard(0x32))

    assert list(found.heard()) == [0x32]


async def test_a_frame_that_is_not_wanted_costs_little(channel: str) -> None:
    """5,000 a second must not hurt: a tenth of a core at the very most, on a slow machine."""
    async with opened(channel, []) as found:
        frame = can.Message(arbitration_id=Identifier(0xF004, 0).can_id(), data=bytes(8))
        begun = time.thread_time()
        for _ in range(5000):
            found._put(frame)

    assert time.thread_time() - begun < 0.1


async def test_nothing_is_sent_where_that_is_not_allowed(channel: str) -> None:
    context = context_for(channel, listen_only=True)
    found = Channel(context, frozenset(), lambda now, message: None, lambda: None)

    with pytest.raises(PluginError, match="listen_only"):
        await found.send(Identifier(DM1, US), bytes(8))


async def test_a_serial_adapter_that_goes_and_comes_back(tmp_path: Path) -> None:
    port = tmp_path / "adapter"
    context = context_for(
        str(port), "slcan", bitrate=250_000, appear_s=0.1, reconnect_max_s=0.1, silent_s=10
    )
    async with running(J1939Plugin(context)):
        await context.wait_for("adapter.state")
        with slcan_line() as (ours, theirs):
            port.symlink_to(ours)
            with truck(_serial(theirs), Unit(0x00, dtcs=[OIL])):
                [fault] = await context.wait_for("j1939.fault", within=20)
        await context.wait_for("adapter.state", 3)
        port.unlink()
        with slcan_line() as (ours, theirs):
            port.symlink_to(ours)
            with truck(_serial(theirs), Unit(0x00, dtcs=[OIL])):
                await context.wait_for("adapter.state", 4, within=20)

    assert (fault["address"], fault["spn"], fault["state"]) == (0, 100, "active")
    assert [each["state"] for each in context.of("adapter.state")] == [
        "lost",
        "connected",
        "lost",
        "connected",
    ]


def _serial(path: str) -> can.BusABC:
    return can.Bus(interface="slcan", channel=path, sleep_after_open=0)


async def test_an_adapter_of_an_unknown_kind_stops_the_plugin(channel: str) -> None:
    context = context_for(channel, "nosuch")

    with pytest.raises(ExceptionGroup) as caught:
        await J1939Plugin(context).run()
    assert caught.group_contains(FatalError, match="nosuch")

    [state] = context.of("adapter.state")
    assert state["state"] == "lost"
