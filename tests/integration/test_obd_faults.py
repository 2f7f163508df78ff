"""Adapters that misbehave: no value is invented, nothing is lost for long, the loop never waits."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.integration.obd_adapters import (
    VIN,
    Adapter,
    Bits,
    Car,
    Context,
    Fault,
    context_for,
    heartbeat,
    invented,
    plugged,
    states,
    until,
    values,
)

STALL_S = 0.020
Condition = Callable[[Context, Adapter], bool]


@asynccontextmanager
async def strained(adapter: Adapter, *, wired: bool = False) -> AsyncIterator[Context]:
    """The plugin at *adapter*; at the end, what must hold whatever the adapter does."""
    async with adapter.wired() if wired else adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: bool(context.events))
            async with heartbeat() as stalls:
                yield context
        assert invented(context, adapter.car) == []
        assert max(stalls) <= STALL_S
        assert VIN not in str(context.reports)


def every(nth: int, fault: Fault) -> Fault:
    """*fault* for each *nth* live value, a whole answer for the rest."""
    count = 0

    def at_times(request: str, answer: bytes) -> Bits:
        nonlocal count
        if not request.startswith("01") or request == "0100":
            return [(0, answer)]
        count += 1
        return fault(request, answer) if count % nth == 0 else [(0, answer)]

    return at_times


def slow(_: str, answer: bytes) -> Bits:
    return [(0.002, bytes([byte])) for byte in answer]


def silent(_request: str, _answer: bytes) -> Bits:
    return []


def drops(_: str, answer: bytes) -> Bits:
    return [(0, answer[: len(answer) // 2]), (0, None)]


def late(_: str, answer: bytes) -> Bits:
    return [(0.35, answer)]


def twice(_: str, answer: bytes) -> Bits:
    return [(0, answer + answer)]


def twice_with_a_pause(_: str, answer: bytes) -> Bits:
    return [(0, answer), (0.01, answer)]


def echoed(request: str, answer: bytes) -> Bits:
    return [(0, f"{request[:2]} {request[2:]}\r".encode() + answer)]


def nuls(_: str, answer: bytes) -> Bits:
    return [(0, b"\0".join(bytes([byte]) for byte in answer) + b"\0")]


def crossed(_: str, answer: bytes) -> Bits:
    return [(0, b"7E8 03 41 2F 7F\r" + answer)]


def endless(_: str, answer: bytes) -> Bits:
    return [*((0.001, answer[:-3] * 200) for _ in range(100)), (0, b"\r\r>")]


def flood(_request: str, _answer: bytes) -> Bits:
    """As much as is kept, in lines as short as can be."""
    return [(0, b"A\r" * 30_000 + b">")]


def empty(_request: str, _answer: bytes) -> Bits:
    return [(0, b"\r\r>")]


def restarts(_request: str, _answer: bytes) -> Bits:
    return [(0, b"\r\rELM327 v2.1\r\r>")]


def unfinished(_: str, answer: bytes) -> Bits:
    return [(0, answer[:-1])]


FAULTS: list[Fault] = [
    *(slow, silent, drops, late, twice, twice_with_a_pause, echoed, nuls, crossed),
    *(endless, flood, empty, restarts, unfinished),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.__name__))
async def test_after_each_fault_values_come_again(fault: Fault) -> None:
    adapter = Adapter(fault=every(5, fault))

    async with strained(adapter) as context:
        await until(lambda: len(values(context, 0x0C)) >= 12, within=30)


@pytest.mark.parametrize("fault", [slow, late, twice, unfinished], ids=lambda fault: fault.__name__)
async def test_the_same_on_a_serial_line(fault: Fault) -> None:
    adapter = Adapter(fault=every(5, fault))

    async with strained(adapter, wired=True) as context:
        await until(lambda: len(values(context, 0x0C)) >= 8, within=30)


async def test_a_late_answer_never_becomes_the_value_of_the_next_question() -> None:
    """The car has one value, so that nothing but the order tells whose an answer is."""
    overdue: list[bytes] = []

    def lag(request: str, answer: bytes) -> Bits:
        overdue.append(answer)
        return late(request, answer)

    adapter = Adapter(car=Car(ecus={"7E8": (0x0C,)}), fault=every(3, lag))
    async with strained(adapter) as context:
        await until(lambda: len(values(context, 0x0C)) >= 6, within=30)

    told = {f"7E804410C{int(value * 4):04X}".encode() + b"\r\r>" for value in values(context, 0x0C)}
    assert overdue
    assert told.isdisjoint(overdue)
    assert "absent" in {data["quality"] for data in context.of("telemetry.pid")}


@pytest.mark.parametrize("fault", [silent, late, endless, crossed, unfinished, drops])
async def test_an_adapter_that_does_nothing_else_gives_no_value(fault: Fault) -> None:
    adapter = Adapter(
        fault=lambda request, answer: fault(request, answer) if request != "0100" else [(0, answer)]
    )

    async with strained(adapter) as context:
        await until(lambda: bool(states(context)), within=30)
        asked = len(adapter.asked)
        await until(lambda: len(adapter.asked) >= asked + 5, within=30)

    assert {data["value"] for data in context.of("telemetry.pid")} <= {None}


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_no_value_is_invented(seed: int) -> None:
    """Digits that were changed on the way nobody can tell; so noise here is not made of them."""
    print(f"seed {seed}")
    chance = random.Random(seed)

    def noise(_request: str, _answer: bytes) -> Bits:
        return [(0, chance.randbytes(chance.randrange(200)))]

    def any_fault(request: str, answer: bytes) -> Bits:
        if chance.random() < 0.7:
            return [(0, answer)]
        return chance.choice([*FAULTS, noise])(request, answer)

    adapter = Adapter(fault=any_fault)
    async with strained(adapter):
        await until(lambda: len(adapter.asked) >= 120, within=60)
