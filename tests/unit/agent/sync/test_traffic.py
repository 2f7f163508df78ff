"""What is counted survives restarts, months and clocks that are set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nexus_agent.clock import Clock
from nexus_agent.config import LinkSection, TrafficBudget
from nexus_agent.protocol import Stamp, Stream
from nexus_agent.store.database import Database
from nexus_agent.sync.policy import MEGABYTE, Policy
from nexus_agent.sync.traffic import Rate, Traffic

LOG, EVENT = Stream.LOG, Stream.EVENT


class SetClock(Clock):
    """A clock that a test sets."""

    def __init__(self, moment: str = "2026-11-23 12:00") -> None:
        super().__init__()
        self.synced = True
        self.mono = 1000.0
        self.set(moment)

    def set(self, moment: str) -> None:
        self.moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)

    def stamp(self) -> Stamp:
        wall = int(self.moment.timestamp()) * 10**9
        now = replace(super().stamp(), wall=wall, synced=self.synced)
        return replace(now, mono=int(self.mono * 1e9))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def database(state_dir: Path) -> AsyncIterator[Database]:
    opened = Database(state_dir)
    await opened.open()
    yield opened
    await opened.close()


async def traffic(database: Database, clock: Clock, **section: TrafficBudget) -> Traffic:
    found = Traffic(database, clock, Policy(LinkSection(**section), UTC))
    await found.open()
    return found


async def written(database: Database) -> list[tuple[str, str, int]]:
    return await database.read("SELECT day, stream, bytes FROM traffic ORDER BY day, stream")


async def test_bytes_are_counted_by_day_and_month(database: Database, clock: SetClock) -> None:
    counted = await traffic(database, clock)
    counted.count(LOG, 10)
    clock.set("2026-11-24 00:00")
    counted.count(LOG, 5)
    counted.count(EVENT, 1)
    assert counted.usage().day == dict.fromkeys(Stream, 0) | {LOG: 5, EVENT: 1}
    assert counted.usage().month == dict.fromkeys(Stream, 0) | {LOG: 15, EVENT: 1}
    clock.set("2026-12-01 00:00")
    assert counted.usage().month == dict.fromkeys(Stream, 0)
    assert counted.total[LOG] == 15


async def test_what_was_flushed_counts_after_a_restart(database: Database, clock: SetClock) -> None:
    before = await traffic(database, clock)
    for size in (10, 20):
        before.count(LOG, size)
        await before.flush()
    after = await traffic(database, clock)
    assert after.usage().day[LOG] == 30
    assert await written(database) == [("2026-11-23", "log", 30)]


@pytest.mark.parametrize("synced", [True, False])
async def test_a_clock_that_is_set_back_gives_no_fresh_budget(
    database: Database, clock: SetClock, synced: bool
) -> None:
    counted = await traffic(database, clock, day_mb=TrafficBudget(total=1))
    counted.count(LOG, MEGABYTE // 2)
    clock.set("2031-05-01 12:00")
    counted.count(LOG, MEGABYTE // 2)
    assert counted.hold(LOG) is None
    clock.set("2026-11-23 13:00")
    clock.synced = synced
    assert counted.hold(LOG) is not None
    await counted.flush()
    assert counted.hold(LOG) is not None
    assert (await traffic(database, clock)).usage().day[LOG] == MEGABYTE


async def test_days_of_a_wrong_clock_do_not_count_for_ever(
    database: Database, clock: SetClock
) -> None:
    clock.set("2031-05-01 12:00")
    counted = await traffic(database, clock, day_mb=TrafficBudget(total=1))
    counted.count(LOG, MEGABYTE)
    await counted.flush()
    clock.set("2026-11-23 13:00")
    await counted.flush()
    assert await written(database) == [("2026-11-23", "log", MEGABYTE)]
    clock.set("2026-11-24 00:00")
    assert counted.hold(LOG) is None


async def test_thirteen_months_are_kept_by_a_clock_that_is_right(
    database: Database, clock: SetClock
) -> None:
    counted = await traffic(database, clock)
    counted.count(LOG, 1)
    clock.set("2027-11-20 00:00")
    counted.count(LOG, 2)
    await counted.flush()
    assert len(await written(database)) == 2
    clock.set("2028-01-01 00:00")
    clock.synced = False
    counted.count(LOG, 3)
    await counted.flush()
    assert len(await written(database)) == 3
    clock.synced = True
    await counted.flush()
    assert [row[0] for row in await written(database)] == ["2027-11-20", "2028-01-01"]


async def test_a_hold_says_how_long_to_wait(database: Database, clock: SetClock) -> None:
    counted = await traffic(database, clock, day_mb=TrafficBudget(log=1))
    counted.count(LOG, MEGABYTE)
    hold = counted.hold(LOG)
    assert hold is not None
    assert counted.wait(hold) == 12 * 3600
    assert counted.wait(replace(hold, until=None)) == float("inf")
    assert counted.hold(EVENT) is None


def test_a_rate_while_busy_leaves_silence_out(clock: SetClock) -> None:
    rate = Rate(clock, bucket_s=5.0, buckets=60)
    for start in (1000.0, 1100.0):
        for second in range(10):
            clock.mono = start + second
            rate.add(1000)
    clock.mono = 1110.0
    assert rate.while_busy() == pytest.approx(1000, rel=0.05)
    assert rate.on_average() == pytest.approx(20_000 / 110, rel=0.05)
    clock.mono = 2000.0
    assert (rate.while_busy(), rate.on_average()) == (0, 0)
