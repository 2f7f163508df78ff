"""The bus inside the box: every listener hears everything, and a slow one costs only itself."""

from __future__ import annotations

import asyncio

from nexus_agent.bus import QUEUE_LENGTH, Bus, Subscription


async def take(subscription: Subscription[int], count: int) -> list[int]:
    async with asyncio.timeout(5):
        return [await anext(subscription) for _ in range(count)]


async def test_every_listener_hears_everything_in_order() -> None:
    bus = Bus[int]()
    async with bus.subscribe() as one, bus.subscribe() as other:
        for n in range(5):
            bus.publish(n)
        assert await take(one, 5) == await take(other, 5) == list(range(5))


async def test_a_slow_listener_loses_the_oldest_and_they_are_counted() -> None:
    bus = Bus[int]()
    async with bus.subscribe() as slow, bus.subscribe() as quick:
        for n in range(QUEUE_LENGTH + 7):
            bus.publish(n)
            assert await take(quick, 1) == [n]
        assert (slow.dropped, quick.dropped) == (7, 0)
        assert await take(slow, QUEUE_LENGTH) == list(range(7, QUEUE_LENGTH + 7))


async def test_a_listener_waits_for_what_comes() -> None:
    bus = Bus[int]()
    async with bus.subscribe() as subscription, asyncio.TaskGroup() as group:
        waiting = group.create_task(take(subscription, 1), name="waiting")
        await asyncio.sleep(0)
        assert not waiting.done()
        bus.publish(1)
    assert waiting.result() == [1]


async def test_one_that_has_left_hears_no_more_and_one_that_comes_late_not_the_past() -> None:
    bus = Bus[int]()
    async with bus.subscribe() as gone:
        bus.publish(1)
    bus.publish(2)
    async with bus.subscribe() as late:
        bus.publish(3)
        assert await take(late, 1) == [3]
    assert await take(gone, 1) == [1]
    assert gone._queue.empty()
