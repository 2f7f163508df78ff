"""What the process costs, and how late its event loop is, against the kernel and a real block."""

from __future__ import annotations

import asyncio
import os
import time

from nexus_agent import vitals
from nexus_agent.vitals import Lag, costs


def test_a_file_that_is_opened_is_counted() -> None:
    before = costs()
    descriptor = os.open("/", os.O_RDONLY)
    try:
        now = costs()
    finally:
        os.close(descriptor)
    assert now.descriptors == before.descriptors + 1 <= now.most_descriptors
    assert now.cpu_s >= before.cpu_s > 0
    assert now.resident_bytes > 1_000_000


async def test_a_blocked_loop_is_late() -> None:
    lag, blocked = Lag(), False

    def block() -> None:
        nonlocal blocked
        if not blocked:
            blocked = True
            asyncio.get_running_loop().call_later(0.4, time.sleep, 0.5)  # noqa: TID251 - the point

    async with asyncio.TaskGroup() as group:
        task = group.create_task(lag.run(block), name="lag")
        async with asyncio.timeout(10):
            while lag.count < 2:
                await asyncio.sleep(0.01)
        task.cancel()
    assert lag.quantile(1.0) >= 0.3
    assert lag.total_s >= lag.quantile(1.0)


def test_only_the_last_minute_counts_for_the_quantiles() -> None:
    lag = Lag()
    assert lag.quantile(0.99) == 0.0
    lag.add(9.0)
    for n in range(int(vitals.WINDOW_S / vitals.TICK_S)):
        lag.add(n / 1000)
    assert lag.quantile(1.0) == lag.quantile(0.999) == 0.119
    assert lag.quantile(0.5) == 0.06
    assert lag.count == 121
