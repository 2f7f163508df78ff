"""A channel is kept open, and what becomes of it is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import can
import pytest
from tests.integration.can_adapters import line_of, plugged_in

from nexus_agent.plugin import FatalError, Settings
from nexus_agent.testing import RecordingContext
from nexus_plugins.canbus import keeper as keeping
from nexus_plugins.canbus.keeper import Keeper
from nexus_plugins.canbus.settings import ChannelSettings

FRAME = can.Message(arbitration_id=0x100, data=b"\x01", is_extended_id=False)


@pytest.fixture
def context() -> RecordingContext[Settings]:
    return RecordingContext(Settings())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(keeping, "_CALM_S", 1.5)


@asynccontextmanager
async def kept(
    context: RecordingContext[Settings],
    settings: ChannelSettings,
    silent_s: float | None = None,
) -> AsyncIterator[tuple[Keeper, list[can.Message]]]:
    taken: list[can.Message] = []
    keeper = Keeper(
        "bay-1",
        settings,
        context,
        taken.append,
        report=context.report,
        longest_s=0.05,
        silent_s=silent_s,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run(), name="keeper")
        yield keeper, taken
        task.cancel()
    assert keeper.pump.is_idle, "the adapter is given back before the keeper ends"


def states(context: RecordingContext[Settings]) -> list[str]:
    return [data["state"] for data in context.of("adapter.state")]


async def test_an_adapter_that_is_plugged_in_again_goes_on(
    context: RecordingContext[Settings], tmp_path: Path
) -> None:
    socket = tmp_path / "adapter"
    settings = ChannelSettings(interface="slcan", channel=str(socket), bitrate=500_000)
    async with kept(context, settings) as (_, taken):
        first = await context.wait_for("adapter.state")
        for count in (2, 4):
            with plugged_in() as adapter:
                socket.symlink_to(adapter.path)
                await context.wait_for("adapter.state", count)
                adapter.say(line_of(FRAME))
                async with asyncio.timeout(5):
                    while len(taken) < count / 2:
                        await asyncio.sleep(0.002)
            socket.unlink()
            await context.wait_for("adapter.state", count + 1)
    assert first[0]["adapter"] == "bay-1"
    assert "cannot be opened" in first[0]["detail"]
    assert states(context) == ["lost", "connected", "lost", "connected", "lost"]
    assert context.of("adapter.state")[1]["detail"] == f"slcan {socket} at 500000 bit/s"
    assert context.reports[0].startswith("lost: ")


async def test_a_bus_that_is_off_now_and_then_is_told_once_until_it_is_calm(
    context: RecordingContext[Settings],
) -> None:
    settings = ChannelSettings(interface="virtual", channel="flapping")
    with can.Bus(channel="flapping", interface="virtual", ignore_config=True) as other:
        async with kept(context, settings) as (keeper, _):
            await context.wait_for("adapter.state")
            for count in range(1, 6):
                other.send(can.Message(is_error_frame=True, arbitration_id=0x40))
                other.send(FRAME)
                async with asyncio.timeout(5):
                    while keeper.pump.frames < count:
                        await asyncio.sleep(0.002)
                await context.wait_for("adapter.state", 2)
            assert states(context) == ["connected", "bus_off"]
            await context.wait_for("adapter.state", 3)
    assert states(context) == ["connected", "bus_off", "connected"]


async def test_a_bus_where_no_frame_comes_is_silent_until_one_does(
    context: RecordingContext[Settings],
) -> None:
    settings = ChannelSettings(interface="virtual", channel="quiet")
    with can.Bus(channel="quiet", interface="virtual", ignore_config=True) as other:
        async with kept(context, settings, silent_s=0.2):
            await context.wait_for("adapter.state", 2)
            other.send(FRAME)
            await context.wait_for("adapter.state", 4)
    assert states(context) == ["connected", "silent", "connected", "silent"]


async def test_what_no_further_attempt_can_help_is_raised(
    context: RecordingContext[Settings],
) -> None:
    settings = ChannelSettings(interface="telepathy", channel="mind")
    with pytest.raises(ExceptionGroup) as caught:
        async with kept(context, settings):
            await context.wait_for("adapter.state", 2)
    assert caught.group_contains(FatalError, match="telepathy")
    assert states(context) == ["lost"]
