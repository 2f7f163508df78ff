"""Forgetting and merging: by a clock that may be trusted, and never what is on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.store.boxed import HOUR, Hours, SetClock

from nexus_agent.clock import BUILT, Clock
from nexus_agent.protocol import Stream, open_segment
from nexus_agent.store import guard
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.segments import row_id


async def test_delivered_events_are_forgotten_by_age(opened: Any) -> None:
    clock = SetClock()
    async with opened(clock=clock) as store:
        await store.emit("old")
        clock.wall += 10 * HOUR
        await store.emit("young", "waits")
        await store.acknowledge(2)
        await store.tidy(hours=5)
        assert [event.data for event in await store.events()] == ["young", "waits"]


async def test_delivered_events_are_forgotten_by_size(opened: Any) -> None:
    async with opened() as store:
        for n in range(4):
            await store.fill(Stream.EVENT, 100_000, seed=n)
        await store.acknowledge(4)
        await store.tidy(megabytes=1.0)
        assert [event.seq for event in await store.events()] == [3, 4]


async def test_nothing_is_too_old_by_a_clock_that_is_not_synchronised(opened: Any) -> None:
    clock = SetClock()
    async with opened(clock=clock) as store:
        await store.emit("waits", "delivered")
        await store.acknowledge(1)
        clock.synced, clock.wall = False, clock.wall + 87_600 * HOUR
        await store.tidy(hours=1, ttl=Hours(event=1))
        assert len(await store.events()) == 2


async def test_times_of_a_wrong_clock_make_nothing_too_old(opened: Any) -> None:
    """A box that boots in 1970 and is set right later has not had its events for 50 years."""
    clock = SetClock()
    clock.synced, now = False, clock.wall
    clock.wall = now - 87_600 * HOUR
    async with opened(clock=clock) as store:
        await store.emit("recorded in 1970, as it seemed")
        clock.synced, clock.wall = True, now
        await store.tidy(ttl=Hours(event=24))
        assert len(await store.waiting()) == 1


async def test_what_waits_too_long_is_dropped_and_declared(opened: Any) -> None:
    clock = SetClock()
    async with opened(clock=clock) as store:
        clock.synced = False
        await store.emit("before the old one, so older still", stream=Stream.LOG)
        clock.synced = True
        await store.emit("old", stream=Stream.LOG)
        clock.wall += 48 * HOUR
        await store.emit("young", stream=Stream.LOG)
        await store.tidy(ttl=Hours(log=24))
        assert [event.data for event in await store.waiting(Stream.LOG)] == ["young"]
        assert await store.losses() == [("log", 1, 1, 2, "older than its time to live")]


@pytest.mark.parametrize("stream", list(Stream))
async def test_small_neighbours_that_were_never_sent_become_one(
    opened: Any, stream: Stream
) -> None:
    async with opened() as store:
        await store.emit(*range(100), stream=stream)
        before = await store.waiting(stream)
        await store.tidy()
        found = await store.outbox.after(stream, 0, 1000)
        assert [(s.first, s.last, s.count) for s in found] == [(1, 100, 100)]
        assert await store.waiting(stream) == before


async def test_what_was_sent_keeps_its_bounds(opened: Any) -> None:
    async with opened() as store:
        await store.emit(*range(40))
        store.outbox.sent(Stream.EVENT, row_id(1, 20))
        await store.tidy()
        found = await store.outbox.after(Stream.EVENT, 0, 1000)
        assert [(s.first, s.last) for s in found] == [*((n, n) for n in range(1, 21)), (21, 40)]


async def test_what_is_acknowledged_is_not_merged_with_what_waits(opened: Any) -> None:
    """After a start nothing counts as sent, whatever the box before it has delivered."""
    async with opened() as store:
        await store.emit(*range(20))
        await store.acknowledge(5)
    async with opened() as store:
        await store.tidy()
        assert [event.seq for event in await store.waiting()] == list(range(6, 21))
        found = await store.outbox.after(Stream.EVENT, 0, 1000)
        assert [(s.first, s.last) for s in found] == [(6, 20)]


async def test_merging_goes_on_where_it_was_and_takes_no_large_ones(opened: Any) -> None:
    async with opened() as store:
        for round_ in range(3):
            await store.emit(*range(30))
            await store.fill(Stream.EVENT, 50_000, seed=round_)
            await store.tidy()
        found = await store.outbox.after(Stream.EVENT, 0, 1000)
        assert [s.count for s in found] == [30, 1, 30, 1, 30, 1]
        assert [e.seq for s in found for e in open_segment(s)] == list(range(1, 94))


async def test_merged_segments_never_reach_over_a_gap(opened: Any) -> None:
    async with opened() as store:
        await store.emit(*range(40))
        await store.database.run(
            lambda c: c.execute("DELETE FROM segment_event WHERE last BETWEEN 15 AND 25")
        )
        await store.tidy()
        found = await store.outbox.after(Stream.EVENT, 0, 1000)
        assert [(s.first, s.last) for s in found] == [(1, 14), (26, 40)]


async def test_telling_of_losses_costs_the_ledger_no_growth_for_ever(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus_agent.store.ledger.KEPT", 3)
    async with opened() as store:
        await store.emit(*range(40))
        for n in range(1, 20, 2):
            await store.outbox.declare_gone(Stream.EVENT, 1, [(n, n)])
        await store.acknowledge(40)
        alerts = store.outbox.position(Stream.ALERT)[1] - 1
        await store.acknowledge(alerts, Stream.ALERT)
        await store.tidy()
        assert len(await store.losses()) == 3


async def test_a_time_beyond_all_clocks_keeps_everything(opened: Any) -> None:
    async with opened() as store:
        await store.emit(1)
        await store.tidy(hours=1e9, ttl=Hours(event=1e9))
        assert len(await store.waiting()) == 1


async def test_a_clock_that_is_set_right_is_written_down_at_once(
    opened: Any, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, synced = [0], [False]
    monkeypatch.setattr("time.time_ns", lambda: wall[0])
    monkeypatch.setattr("nexus_agent.clock._synchronised", lambda _since: synced[0])
    monkeypatch.setattr("nexus_agent.store.housekeeping.TICK_S", 0.01)

    async def written(since: int) -> None:
        async with asyncio.timeout(10):
            while (known := guard.read(state_dir)) is None or known.time < since:
                await asyncio.sleep(0.01)

    clock = Clock()
    async with opened(clock=clock) as store, asyncio.TaskGroup() as group:
        (state_dir / guard.FILE_NAME).unlink()
        keeper = Housekeeper(store.outbox, store.database, clock, Keep(1, 1), Hours())
        running = group.create_task(keeper.run(), name="housekeeping")
        await written(0)
        wall[0], synced[0] = BUILT + 1000 * HOUR, True
        await written(wall[0])
        running.cancel()
