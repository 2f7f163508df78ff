"""The double says what the agent would say: a plugin that passes here passes there."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from nexus_agent.bus import QUEUE_LENGTH
from nexus_agent.plugin import BusEvent, EmitError, Overflow, Settings, StateError, Stream
from nexus_agent.store.state import QUOTA_BYTES
from nexus_agent.testing import Emitted, MemoryState, RecordingContext


class Rate(Settings):
    interval_s: float = 60.0


@pytest.fixture
def context() -> RecordingContext[Rate]:
    return RecordingContext(Rate())


def heard(event_type: str, number: int = 0, source: str = "other") -> BusEvent:
    return BusEvent(source, event_type, Stream.EVENT, 0, number)


async def test_what_is_emitted_is_kept_as_json_has_it(context: RecordingContext[Rate]) -> None:
    await context.emit("a.b", {"pair": (1, 2)})
    context.hand_over("a.c", None)

    assert context.events == [
        Emitted("a.b", {"pair": [1, 2]}, Stream.EVENT, promised=True),
        Emitted("a.c", None, Stream.TELEMETRY, promised=False),
    ]


@pytest.mark.parametrize(
    ("event_type", "data"),
    [("Wrong", 1), ("no_dot", 1), ("a.b", object()), ("a.b", math.nan), ("a.b", "x" * 300_000)],
)
async def test_garbage_is_refused_and_nothing_beside_it_is_taken(
    context: RecordingContext[Rate], event_type: str, data: Any
) -> None:
    with pytest.raises(EmitError):
        await context.emit_many([("a.b", 1), (event_type, data)])
    with pytest.raises(EmitError):
        context.hand_over_many([("a.b", 1), (event_type, data)])
    assert context.events == []


async def test_sleep_ends_when_its_time_is_over(context: RecordingContext[Rate]) -> None:
    assert await context.sleep(0.001) is False


async def test_sleep_ends_at_once_when_the_settings_change(
    context: RecordingContext[Rate],
) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        sleeping = group.create_task(context.sleep(3600), name="sleeping")
        await asyncio.sleep(0)
        context.become(Rate(interval_s=1))

    assert sleeping.result() is True
    assert context.settings.interval_s == 1
    assert await context.sleep(0.001) is False, "the change was told before"


async def test_alive_is_counted(context: RecordingContext[Rate]) -> None:
    context.alive()
    assert context.alive_count == 1


async def test_a_subscription_hears_what_its_patterns_match(
    context: RecordingContext[Rate],
) -> None:
    async with asyncio.timeout(5), context.subscribe("dtc.*", "own.event") as subscription:
        context.deliver(heard("telemetry.pid"))
        context.deliver(heard("dtc.observed"))
        await context.emit("own.event", 1)
        events = aiter(subscription)
        found = [(await anext(events)).type for _ in range(2)]

    assert found == ["dtc.observed", "own.event"]


@pytest.mark.parametrize(
    ("overflow", "first", "dropped"),
    [(Overflow.DROP_OLDEST, 2, 2), (Overflow.DROP_NEWEST, 0, 2), (Overflow.LATEST, 1001, 0)],
)
async def test_a_full_subscription_does_as_it_was_told(
    context: RecordingContext[Rate], overflow: Overflow, first: int, dropped: int
) -> None:
    async with asyncio.timeout(5), context.subscribe(overflow=overflow) as subscription:
        for number in range(QUEUE_LENGTH + 2):
            context.deliver(heard("a.b", number))
        assert (await anext(aiter(subscription))).data == first
        assert subscription.dropped == dropped


async def test_at_most_four_blocking_calls_run_at_a_time(context: RecordingContext[Rate]) -> None:
    at_once, most = 0, 0
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def call() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 4:
            loop.call_soon_threadsafe(gate.set)
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(5)
        at_once -= 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(context.run_blocking(call), name=f"call-{number}")
    assert most == 4


async def test_a_vehicle_has_a_reference(context: RecordingContext[Rate]) -> None:
    assert await context.vehicle("V1N") == {"vehicle_ref": "test-V1N", "vin": "V1N"}


async def test_state_outlives_a_context() -> None:
    state = MemoryState()
    await RecordingContext(Rate(), state=state).state.set("seen", [1, {"a": None}])
    assert await RecordingContext(Rate(), state=state).state.get("seen") == [1, {"a": None}]


@pytest.mark.parametrize("value", [object(), {1: 2, "a": object()}, math.inf, b"bytes"])
async def test_state_takes_nothing_but_json_and_keeps_the_old_value(value: Any) -> None:
    state = MemoryState()
    await state.set("key", 1)
    with pytest.raises(StateError, match="key: not JSON"):
        await state.set("key", value)
    assert await state.get("key") == 1


@pytest.mark.parametrize("key", ["", "k" * 201])
async def test_state_refuses_keys_of_a_wrong_length(key: str) -> None:
    with pytest.raises(StateError, match="1 to 200 characters"):
        await MemoryState().set(key, 1)


async def test_state_has_the_agents_quota_and_deleting_gives_room() -> None:
    state = MemoryState()
    half = "x" * (QUOTA_BYTES // 2)
    await state.set("one", half)
    with pytest.raises(StateError, match="delete keys"):
        await state.set("two", half)
    await state.set("one", half[1:])
    await state.set("one", None)
    await state.set("two", half)
    assert await state.get("one") is None
