"""Watchers: told once, however often and from whatever thread something changes."""

from __future__ import annotations

import asyncio

from nexus_console.live import PRESENCE, Live


async def test_changes_that_were_not_fetched_fall_together() -> None:
    live = Live()
    with live.watching() as watcher:
        for _ in range(1000):
            await asyncio.to_thread(live.tell, {("bay-1", "event")})
        live.tell({("bay-1", PRESENCE), ("bay-2", "alert")})
        await asyncio.sleep(0)
        told = await watcher.wait(5)
        assert told == {"bay-1": ["event", "presence"], "bay-2": ["alert"]}
        assert await watcher.wait(0.01) == {}


async def test_who_has_gone_is_forgotten() -> None:
    live = Live()
    with live.watching():
        assert len(live) == 1
    assert len(live) == 0
    live.tell({("bay-1", "event")})


async def test_closing_lets_every_watcher_go_at_once() -> None:
    live = Live()
    with live.watching() as watcher:
        live.close()
        assert await watcher.wait(60) == {}
    assert live.closed
