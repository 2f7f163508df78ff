"""can_signals at work on a channel: a bus in this process, and a serial adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import can
import pytest
from tests.integration.can_adapters import line_of, plugged_in
from tests.integration.can_telling import (
    BROKEN,
    DRIVE,
    TRUCK,
    Recorded,
    at_work,
    context_of,
    engine,
    on_bus,
    until,
    values,
)

from nexus_agent.plugin import EmitError, FatalError, Stream
from nexus_agent.testing import RecordingContext, running
from nexus_plugins.can_signals import CanSignalsPlugin, feed
from nexus_plugins.can_signals.settings import CanSignalsSettings


@pytest.fixture
def bus() -> Iterator[can.BusABC]:
    opened = can.Bus(channel="signals", interface="virtual", ignore_config=True)
    yield opened
    opened.shutdown()


async def test_signals_of_a_channel_are_told_with_unit_and_word(bus: can.BusABC) -> None:
    context = on_bus(DRIVE)
    async with at_work(context):
        bus.send(engine(1000))
        found = await context.wait_for("telemetry.signal", 5)
    by_name = {data["signal"]: data for data in found}
    assert by_name["EngineSpeed"] == {
        "channel": "bay",
        "message": "Engine",
        "signal": "EngineSpeed",
        "value": 1000.0,
        "unit": "rpm",
        "quality": "ok",
    }
    assert (by_name["OilTemperature"]["value"], by_name["OilTemperature"]["unit"]) == (80.0, "°C")
    assert by_name["EngineState"]["value"] == "running"
    assert {event.stream for event in context.events if event.type == "telemetry.signal"} == {
        Stream.TELEMETRY
    }


async def test_a_j1939_signal_says_who_sent_it(bus: can.BusABC) -> None:
    context = on_bus(TRUCK, signals=["EngSpeed"])
    async with at_work(context):
        for source in (0x00, 0x0F):
            data = bytes.fromhex("F0FF7D0019FFFFFF")
            bus.send(can.Message(arbitration_id=0x0CF00400 | source, data=data))
        found = await context.wait_for("telemetry.signal", 2)
    assert [(data["address"], data["value"]) for data in found] == [(0, 800.0), (15, 800.0)]


async def test_a_file_that_does_not_load_costs_nothing_else(bus: can.BusABC) -> None:
    context = on_bus(BROKEN, DRIVE)
    async with at_work(context):
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal")
    assert "broken.dbc does not load: " in context.reports[-1]
    assert "line 4" in context.reports[-1]
    assert "connected: virtual signals" in context.reports[-1]


async def test_a_can_fd_frame_with_more_than_eight_bytes(bus: can.BusABC) -> None:
    context = on_bus(DRIVE, signals=["Pressure", "Serial"])
    data = bytes.fromhex("0000803F") + (2**60 + 1).to_bytes(8, "little") + bytes(4)
    async with at_work(context):
        bus.send(can.Message(arbitration_id=1280, data=data, is_fd=True, is_extended_id=False))
        await context.wait_for("telemetry.signal", 2)
    assert values(context) == {"Pressure": [1.0], "Serial": ["1152921504606846977"]}


async def test_the_traffic_of_a_minute_says_what_became_of_every_frame(
    bus: can.BusABC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_TRAFFIC_S", 0.2)
    context = on_bus(DRIVE)
    async with at_work(context):
        for speed in range(20):
            bus.send(engine(speed))
        bus.send(can.Message(arbitration_id=256, data=b"", is_extended_id=False))
        bus.send(can.Message(arbitration_id=1, data=b"", is_extended_id=False))
        bus.send(can.Message(is_error_frame=True, arbitration_id=4))
        await until(lambda: totals(context)["errors"] == 1)
        await until(lambda: totals(context)["values"] == len(context.of("telemetry.signal")))
    total = totals(context)
    assert (total["frames"], total["unknown"], total["malformed"]) == (22, 1, 1)
    assert total["superseded"] + total["dropped"] <= 19
    assert "signals" in context.reports[-1]


def totals(context: Recorded) -> dict[str, float]:
    total: dict[str, float] = dict.fromkeys(("errors", "values"), 0)
    for data in context.of("can.traffic"):
        for name, value in data.items():
            if name != "channel":
                total[name] = total.get(name, 0) + value
    return total


async def test_signals_of_a_bus_that_falls_silent_are_absent_once(
    bus: can.BusABC, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_SILENCE_S", 0.05)
    context = on_bus(DRIVE, signals=["EngineSpeed"], absent_after_s=0.2)
    async with at_work(context):
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal", 2)
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal", 4)
    assert values(context) == {"EngineSpeed": [1000.0, "absent", 1000.0, "absent"]}
    assert [data["state"] for data in context.of("adapter.state")][:3] == [
        "connected",
        "silent",
        "connected",
    ]


class FullContext(RecordingContext[CanSignalsSettings]):
    """The box cannot take telemetry until it is told that it can."""

    is_full = True

    def hand_over_many(self, events: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        if self.is_full:
            raise EmitError("the disk is full")
        super().hand_over_many(events, stream=stream)


async def test_what_the_box_cannot_take_is_told_once_it_can(bus: can.BusABC) -> None:
    context = FullContext(on_bus(DRIVE, signals=["EngineSpeed"]).settings)
    async with at_work(context):
        bus.send(engine(1000))
        await asyncio.sleep(2 * feed.TICK_S)
        context.is_full = False
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal")
    assert values(context) == {"EngineSpeed": [1000.0]}


async def test_a_channel_that_cannot_be_leaves_the_others_alone(bus: can.BusABC) -> None:
    context = context_of(
        channels={
            "none": {"interface": "telepathy", "channel": "x", "dbc": [DRIVE]},
            "bay": {"interface": "virtual", "channel": "signals", "dbc": [DRIVE]},
        }
    )
    async with at_work(context):
        await context.wait_for("adapter.state", 2)
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal")
    assert states_of(context) == {"none": "lost", "bay": "connected"}


async def test_where_no_channel_can_be_the_plugin_stays_down() -> None:
    channel = {"interface": "telepathy", "channel": "x", "dbc": [DRIVE]}
    with pytest.raises(FatalError, match="telepathy"):
        await CanSignalsPlugin(context_of(channels={"none": channel})).run()


async def test_a_serial_adapter_that_is_plugged_in_again_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "adapter"
    channel = {"interface": "slcan", "channel": str(path), "dbc": [DRIVE]}
    context = context_of(channels={"bay": channel}, reconnect_max_s=0.05, signals=["EngineSpeed"])
    async with at_work(context):
        for count, speed in ((2, 1000), (4, 2000)):
            with plugged_in() as adapter:
                path.symlink_to(adapter.path)
                await context.wait_for("adapter.state", count)
                adapter.say(line_of(engine(speed)))
                await context.wait_for("telemetry.signal", count // 2)
            path.unlink()
            await context.wait_for("adapter.state", count + 1)
    states = [data["state"] for data in context.of("adapter.state")]
    assert states == ["lost", "connected", "lost", "connected", "lost"]
    assert values(context) == {"EngineSpeed": [1000.0, 2000.0]}


async def test_it_ends_wherever_it_is_cancelled() -> None:
    for delay in (0.0, 0.02, 0.2, 0.6, 1.0):
        async with running(CanSignalsPlugin(on_bus(DRIVE, TRUCK))):
            await asyncio.sleep(delay)


async def test_a_log_that_is_not_there_leaves_the_channels_alone(
    bus: can.BusABC, tmp_path: Path
) -> None:
    context = context_of(
        channels={"bay": {"interface": "virtual", "channel": "signals", "dbc": [DRIVE]}},
        replays={"log": {"file": str(tmp_path / "none.asc"), "dbc": [DRIVE]}},
    )
    async with at_work(context):
        await until(lambda: len(states_of(context)) == 2)
        bus.send(engine(1000))
        await context.wait_for("telemetry.signal")
    assert states_of(context) == {"bay": "connected", "log": "lost"}
    assert "the log cannot be played on" in context.reports[-1]


def states_of(context: Recorded) -> dict[str, str]:
    return {data["adapter"]: data["state"] for data in context.of("adapter.state")}
