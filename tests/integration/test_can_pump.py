"""Frames of a channel: taken by a worker thread, from a bus in this process and a serial line."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import can
import pytest
from tests.integration.can_adapters import PtyAdapter, line_of, plugged_in

from nexus_agent.plugin import RetryError
from nexus_plugins.canbus.pump import Pump
from nexus_plugins.canbus.settings import ChannelSettings

BUS_OFF = can.Message(is_error_frame=True, arbitration_id=0x40)
RESTARTED = can.Message(is_error_frame=True, arbitration_id=0x100)


def frame(number: int, data: bytes = b"\x01\x02") -> can.Message:
    return can.Message(arbitration_id=number, data=data, is_extended_id=number > 0x7FF)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def pumping(pump: Pump) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.to_thread(pump.run), name="pump")
        try:
            await until(lambda: pump.is_open or task.done())
            yield task
        finally:
            pump.stop()


@pytest.fixture
def taken() -> list[can.Message]:
    return []


@pytest.fixture
def virtual(taken: list[can.Message]) -> Pump:
    return Pump(ChannelSettings(interface="virtual", channel="pumped"), taken.append)


@pytest.fixture
def other() -> Iterator[can.BusABC]:
    bus = can.Bus(channel="pumped", interface="virtual", ignore_config=True)
    yield bus
    bus.shutdown()


async def test_data_frames_are_handed_on_and_others_are_not(
    virtual: Pump, other: can.BusABC, taken: list[can.Message]
) -> None:
    async with pumping(virtual):
        other.send(frame(1))
        other.send(can.Message(arbitration_id=2, is_remote_frame=True))
        other.send(can.Message(is_error_frame=True, arbitration_id=4))
        other.send(frame(0x18FEF100))
        await until(lambda: len(taken) == 2)
    assert [message.arbitration_id for message in taken] == [1, 0x18FEF100]
    assert (virtual.frames, virtual.errors, virtual.bus_off) == (2, 1, False)


@pytest.fixture
def vcan() -> Iterator[str]:
    """A channel of the kernel's, where it has any."""
    name = f"vcan{os.getpid() % 100_000}"
    ip = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if ip is None:
        pytest.skip("real SocketCAN: there is no `ip` here")
    made = subprocess.run(
        [ip, "link", "add", "dev", name, "up", "type", "vcan"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"real SocketCAN: this kernel gives no vcan: {made.stderr.strip()}")
    yield name
    subprocess.run([ip, "link", "delete", name], check=True)


async def test_real_socketcan_works_by_setting_the_channel(
    vcan: str, taken: list[can.Message]
) -> None:
    with can.Bus(channel=vcan, interface="socketcan", ignore_config=True) as other:
        async with pumping(Pump(ChannelSettings(channel=vcan), taken.append)):
            other.send(frame(0x18FEF100))
            await until(lambda: len(taken) == 1)
    assert (taken[0].arbitration_id, bytes(taken[0].data)) == (0x18FEF100, b"\x01\x02")


async def test_it_ends_soon_after_it_is_stopped_and_gives_the_channel_back(virtual: Pump) -> None:
    async with pumping(virtual) as task:
        virtual.stop()
        async with asyncio.timeout(1):
            await task
    assert (virtual.is_open, virtual.is_idle) == (False, True)
    with pytest.raises(RetryError, match="is not open"):
        virtual.send(frame(1))


async def test_one_that_was_stopped_does_not_begin(virtual: Pump) -> None:
    virtual.stop()
    virtual.run()
    assert virtual.frames == 0


@pytest.mark.parametrize("back", [RESTARTED, frame(1)], ids=["restarted", "data"])
async def test_bus_off_lasts_until_the_bus_is_back(
    virtual: Pump, other: can.BusABC, back: can.Message
) -> None:
    async with pumping(virtual):
        other.send(BUS_OFF)
        await until(lambda: virtual.bus_off)
        other.send(back)
        await until(lambda: not virtual.bus_off)
    assert virtual.bus_offs == 1


async def test_it_sends(virtual: Pump, other: can.BusABC) -> None:
    async with pumping(virtual):
        await asyncio.to_thread(virtual.send, frame(0x123))
        message = await asyncio.to_thread(other.recv, 5)
    assert message is not None
    assert message.arbitration_id == 0x123


# -- a serial adapter ----------------------------------------------------------------------------


def serial(adapter: PtyAdapter, taken: list[can.Message]) -> Pump:
    settings = ChannelSettings(interface="slcan", channel=adapter.path, bitrate=250_000)
    return Pump(settings, taken.append)


async def test_a_serial_adapter_is_set_up_and_closed(taken: list[can.Message]) -> None:
    with plugged_in() as adapter:
        async with pumping(serial(adapter, taken)):
            opened = adapter.told()
        closed = adapter.told()
    assert opened.split(b"\r")[1] == b"S5"
    assert opened.endswith(b"O\r")
    assert closed == b"C\r"


async def test_frames_come_whole_however_the_line_cuts_them(taken: list[can.Message]) -> None:
    sent = [frame(0x7E8, bytes(8)), frame(0x18F00400, b""), frame(0x100, b"\xff")]
    text = b"\r" + b"\r".join(line_of(each).rstrip(b"\r") for each in sent) + b"\r\a"
    with plugged_in() as adapter:
        pump = serial(adapter, taken)
        async with pumping(pump):
            for position in range(len(text)):
                adapter.say(text[position : position + 1])
            await until(lambda: len(taken) == len(sent))
    assert [(each.arbitration_id, bytes(each.data)) for each in taken] == [
        (each.arbitration_id, bytes(each.data)) for each in sent
    ]
    assert pump.errors == 0


@pytest.mark.parametrize(
    "garbage",
    [b"t12\r", b"t1238\r", b"t123800112233\r", b"tXYZ0\r", b"\xff\xfe\r", b"T18F\r", b"x" * 400],
)
async def test_what_is_no_frame_is_counted_and_the_next_is_taken(
    taken: list[can.Message], garbage: bytes
) -> None:
    with plugged_in() as adapter:
        pump = serial(adapter, taken)
        async with pumping(pump):
            adapter.say(garbage)
            await until(lambda: pump.errors == 1 or garbage == b"\xff\xfe\r")
            adapter.say(b"\r" + line_of(frame(0x321)))
            await until(lambda: bool(taken))
    assert [each.arbitration_id for each in taken] == [0x321]


async def test_a_can_fd_frame_is_taken(taken: list[can.Message]) -> None:
    with plugged_in() as adapter:
        async with pumping(serial(adapter, taken)):
            adapter.say(b"d3219" + b"AB" * 12 + b"\r")
            await until(lambda: bool(taken))
    assert (taken[0].is_fd, len(taken[0].data)) == (True, 12)


async def test_an_adapter_that_is_pulled_out_ends_the_run(taken: list[can.Message]) -> None:
    with plugged_in() as adapter:
        pump = serial(adapter, taken)
        with pytest.raises(ExceptionGroup) as caught:
            await _pumped_until_pulled(pump, adapter)
    assert caught.group_contains(RetryError, match="has gone")
    assert not pump.is_open


async def _pumped_until_pulled(pump: Pump, adapter: PtyAdapter) -> None:
    async with pumping(pump) as task:
        adapter.pull()
        await asyncio.wait([task], timeout=5)
