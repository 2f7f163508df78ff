"""The bus inside the box: listeners hear what they asked for, and a slow one costs only itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nexus_agent.bus import QUEUE_LENGTH, Bus, Listener
from nexus_agent.plugin import BusEvent, Overflow, Stream


def event(data: Any, kind: str = "a.b", source: str = "one") -> BusEvent:
    return BusEvent(source, kind, Stream.EVENT, 0, data)


async def take(listener: Listener, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(5):
        async for heard in listener:
            found.append(heard.data)
            if len(found) == count:
                return found
    raise AssertionError


async def test_every_listener_hears_everything_in_order() -> None:
    bus = Bus()
    with bus.listen() as one, bus.listen() as other:
        for n in range(5):
            bus.publish(event(n))
        assert await take(one, 5) == await take(other, 5) == list(range(5))


@pytest.mark.parametrize(
    ("patterns", "heard"),
    [
        ((), ["dtc.observed", "dtc.cleared", "host.metrics"]),
        (("dtc.*",), ["dtc.observed", "dtc.cleared"]),
        (("*.metrics", "dtc.cleared"), ["dtc.cleared", "host.metrics"]),
        (("dtc",), []),
        (("*",), ["dtc.observed", "dtc.cleared", "host.metrics"]),
    ],
)
async def test_a_listener_hears_the_types_that_its_patterns_match(
    patterns: tuple[str, ...], heard: list[str]
) -> None:
    bus = Bus()
    with bus.listen(*patterns) as listener, bus.listen("*") as everything:
        for kind in ("dtc.observed", "dtc.cleared", "host.metrics"):
            bus.publish(event(kind, kind))
        await take(everything, 3)
        bus.publish(event("end", "dtc.observed"))
        bus.publish(event("end", "x.metrics"))
        if heard:
            assert await take(listener, len(heard) + 1) == [*heard, "end"]
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await take(listener, 1)


async def test_a_slow_listener_loses_the_oldest_and_they_are_counted() -> None:
    bus = Bus()
    with bus.listen() as slow, bus.listen() as quick:
        for n in range(QUEUE_LENGTH + 7):
            bus.publish(event(n))
            assert await take(quick, 1) == [n]
        assert (slow.dropped, quick.dropped) == (7, 0)
        assert await take(slow, QUEUE_LENGTH) == list(range(7, QUEUE_LENGTH + 7))


async def test_one_that_wants_no_gap_loses_the_newest() -> None:
    bus = Bus()
    with bus.listen(overflow=Overflow.DROP_NEWEST) as slow:
        for n in range(QUEUE_LENGTH + 7):
            bus.publish(event(n))
        assert slow.dropped == 7
        assert await take(slow, QUEUE_LENGTH) == list(range(QUEUE_LENGTH))


async def test_one_that_wants_to_know_how_things_are_gets_the_last_of_each() -> None:
    bus = Bus()
    with bus.listen(overflow=Overflow.LATEST) as slow:
        for n in range(10 * QUEUE_LENGTH):
            bus.publish(event(n, source="one"))
            bus.publish(event(-n, source="other"))
        assert slow.dropped == 0
        assert await take(slow, 2) == [10 * QUEUE_LENGTH - 1, 1 - 10 * QUEUE_LENGTH]


async def test_even_then_there_is_an_end_to_what_is_kept() -> None:
    bus = Bus()
    with bus.listen(overflow=Overflow.LATEST) as slow:
        for n in range(QUEUE_LENGTH + 3):
            bus.publish(event(n, kind=f"kind.{n}"))
        assert slow.dropped == 3
        assert await take(slow, QUEUE_LENGTH) == list(range(3, QUEUE_LENGTH + 3))


async def test_a_listener_waits_for_what_comes() -> None:
    bus = Bus()
    with bus.listen() as listener:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(take(listener, 1), name="waiting")
            await asyncio.sleep(0)
            assert not waiting.done()
            bus.publish(event(1))
        assert waiting.result() == [1]


async def test_one_that_has_left_hears_no_more_and_one_that_comes_late_not_the_past() -> None:
    bus = Bus()
    with bus.listen() as gone:
        bus.publish(event(1))
    bus.publish(event(2))
    with bus.listen() as late:
        bus.publish(event(3))
        assert await take(late, 1) == [3]
    with bus.listen() as other:
        assert bus.is_heard
        bus.publish(event(4))
        assert await take(other, 1) == [4]
    assert await take(gone, 1) == [1]
    assert not bus.is_heard
