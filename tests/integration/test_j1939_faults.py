"""Faults of a truck, from DM1s that another implementation sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import can
import pytest
from tests.integration.j1939_truck import Hand, Unit, truck

from nexus_agent.plugin import Stream
from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.j1939 import J1939Plugin
from nexus_plugins.j1939.identifier import DM1, Identifier
from nexus_plugins.j1939.settings import J1939Settings

Context = RecordingContext[J1939Settings]

OIL, COOLANT = (100, 1, 5), (110, 3, 2)
NO_FAULT = bytes.fromhex("00FF00000000FFFF")
OIL_FAULT = bytes.fromhex("04FF64000105FFFF")


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"j1939-{request.node.name}"


@pytest.fixture
def hand(channel: str) -> Iterator[Hand]:
    with Hand(channel) as found:
        yield found


def context_for(channel: str, state: MemoryState | None = None, **given: Any) -> Context:
    settings = {"appear_s": 0.05, "gone_s": 0.3, "silent_s": 0.6, **given}
    return Context(J1939Settings(interface="virtual", channel=channel, **settings), state=state)


def virtual(channel: str) -> can.BusABC:
    return can.Bus(interface="virtual", channel=channel)


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_fault_is_told_when_it_appears_and_when_it_goes(channel: str) -> None:
    engine = Unit(0x00, dtcs=[OIL], lamps={"awl": 1})
    context = context_for(channel)

    async with running(J1939Plugin(context)):
        with truck(virtual(channel), engine):
            [begun] = await context.wait_for("j1939.fault")
            engine.dtcs = []
            begun, ended = await context.wait_for("j1939.fault", 2)

    assert begun == {
        "channel": channel,
        "address": 0,
        "name": "0000000001400100",
        "spn": 100,
        "fmi": 1,
        "occurrences": 5,
        "state": "active",
        "lamps": {"malfunction": "off", "stop": "off", "warning": "on", "protect": "off"},
    }
    assert ended == begun | {"state": "gone"}
    assert [e.stream for e in context.events if e.type == "j1939.fault"] == [Stream.EVENT] * 2


async def test_broadcasts_of_two_control_units_at_once_are_told_apart(channel: str) -> None:
    many = [(1000 + n, n % 31, n) for n in range(5)]
    engine, brakes = Unit(0x00, dtcs=many), Unit(0x0B, dtcs=[COOLANT, OIL])
    context = context_for(channel)

    async with running(J1939Plugin(context)):
        with truck(virtual(channel), engine, brakes):
            found = await context.wait_for("j1939.fault", 7)

    told = sorted(
        (each["address"], each["spn"], each["fmi"], each["occurrences"]) for each in found
    )
    assert told == [(0, *each) for each in many] + [(11, *OIL), (11, *COOLANT)]


async def test_a_dm1_without_a_fault_is_no_fault(channel: str) -> None:
    context = context_for(channel)

    async with running(J1939Plugin(context)):
        with truck(virtual(channel), Unit(0x00), Unit(0x03)):
            await until(lambda: "2 control units; no active fault" in "".join(context.reports))

    assert context.of("j1939.fault") == []
    assert [each["state"] for each in context.of("adapter.state")][:1] == ["connected"]


async def test_the_red_stop_lamp_is_an_alert(channel: str) -> None:
    context = context_for(channel)

    async with running(J1939Plugin(context)):
        with truck(virtual(channel), Unit(0x00, dtcs=[OIL], lamps={"rsl": 2})):
            [found] = await context.wait_for("j1939.fault")

    assert found["lamps"]["stop"] == "slow flash"
    assert [e.stream for e in context.events if e.type == "j1939.fault"] == [Stream.ALERT]


async def test_a_restart_tells_nothing_twice_and_forgets_nothing(channel: str, hand: Hand) -> None:
    state = MemoryState()
    first = context_for(channel, state, appear_s=0)
    async with running(J1939Plugin(first)):
        await until(lambda: _sent(hand, OIL_FAULT) and first.of("j1939.fault"))
        await until(lambda: state._texts.get("faults"))

    second = context_for(channel, state, appear_s=0, gone_s=0)
    async with running(J1939Plugin(second)):
        await until(lambda: _sent(hand, OIL_FAULT) and second.of("adapter.state"))
        assert second.of("j1939.fault") == []
        hand.send(Identifier(DM1, 0), NO_FAULT)
        [ended] = await second.wait_for("j1939.fault")

    assert (ended["state"], ended["spn"]) == ("gone", 100)
    assert await state.get("faults") == []


def _sent(hand: Hand, data: bytes) -> bool:
    hand.send(Identifier(DM1, 0), data)
    return True


async def test_silence_is_not_gone_and_is_told_of_the_channel(channel: str, hand: Hand) -> None:
    context = context_for(channel, appear_s=0, gone_s=0)

    async with running(J1939Plugin(context)):
        await until(lambda: _sent(hand, OIL_FAULT) and context.of("j1939.fault"))
        await until(lambda: len(context.of("adapter.state")) == 2)

    assert [each["state"] for each in context.of("j1939.fault")] == ["active"]
    assert [each["state"] for each in context.of("adapter.state")] == ["connected", "silent"]


async def test_a_control_unit_that_is_silent_while_others_speak_is_named(
    channel: str, hand: Hand
) -> None:
    context = context_for(channel)

    def speak() -> bool:
        return _sent(hand, NO_FAULT) and "silent: J1939 0B" in "".join(context.reports)

    async with running(J1939Plugin(context)):
        await until(lambda: _sent(hand, NO_FAULT) and context.of("adapter.state"))
        hand.send(Identifier(DM1, 0x0B), NO_FAULT)
        await until(speak)

    assert [each["state"] for each in context.of("adapter.state")] == ["connected"]


async def test_another_control_unit_does_not_end_the_fault_of_the_one_before(
    channel: str, hand: Hand
) -> None:
    state = MemoryState()
    context = context_for(channel, state, appear_s=0, gone_s=0)

    async with running(J1939Plugin(context)):
        await until(lambda: _sent(hand, NO_FAULT) and context.of("adapter.state"))
        hand.claim(0x00, 0xAA)
        hand.send(Identifier(DM1, 0), OIL_FAULT)
        await context.wait_for("j1939.fault")
        hand.claim(0x00, 0xBB)
        hand.send(Identifier(DM1, 0), NO_FAULT)
        await until(lambda: state._texts.get("faults") == "[]")

    assert [each["state"] for each in context.of("j1939.fault")] == ["active"]


async def test_what_cannot_be_read_is_counted_and_tells_nothing(channel: str, hand: Hand) -> None:
    context = context_for(channel, appear_s=0)

    async with running(J1939Plugin(context)):
        await until(lambda: _sent(hand, NO_FAULT) and context.of("adapter.state"))
        hand.send(Identifier(DM1, 0), b"\x00")
        hand.send(Identifier(DM1, 0), bytes.fromhex("04FF95D9E384FFFF"))
        await until(
            lambda: _sent(hand, NO_FAULT) and "DM1s not read whole: 2" in "".join(context.reports)
        )

    assert context.of("j1939.fault") == []
