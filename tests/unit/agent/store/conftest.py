"""Fixtures of the store's tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.unit.agent.store.boxed import SetClock, Store

from nexus_agent.protocol import Stream
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox

Opener: TypeAlias = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def opened(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """Open the box's store for the length of a block; again and again, with what is there."""
    monkeypatch.setattr("nexus_agent.store.buffer.WINDOW_S", dict.fromkeys(Stream, 0.0))

    @asynccontextmanager
    async def store(
        folder: Path = state_dir,
        *,
        quota: int = 64_000_000,
        deadline_s: float = 0.0,
        clock: SetClock | None = None,
    ) -> AsyncIterator[Store]:
        clock = clock or SetClock()
        database = Database(folder, quota)
        try:
            await database.open()
            outbox = Outbox(database, "box-1", clock, deadline_s=deadline_s)
            await outbox.open()
            async with asyncio.TaskGroup() as group:
                group.create_task(outbox.run(), name="outbox")
                yield Store(database, outbox, clock)
                outbox.close()
            await outbox.remember()
        finally:
            await database.close()

    return store
