"""Damage that SQLite reads over, or tells in bytes that are no text: found, and salvaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.agent.store.conftest import Opener

from nexus_agent.store.errors import DamagedError


def _spoil(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "agent.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        for statement in statements:
            connection.execute(statement)


async def test_a_schema_that_is_no_text_is_salvaged_at_the_start(
    opened: Opener, state_dir: Path
) -> None:
    async with opened() as store:
        await store.emit(1, 2, 3)
    _spoil(
        state_dir,
        "UPDATE sqlite_master SET sql=CAST(x'435245415445205441a04c45' AS TEXT) "
        "WHERE name='traffic'",
    )
    async with opened() as store:
        assert [event.data for event in await store.events()] == [1, 2, 3]


@pytest.mark.parametrize("column", ["count", "first_time", "payload"])
async def test_a_row_of_other_types_is_damage_that_is_healed(
    opened: Opener, state_dir: Path, column: str
) -> None:
    async with opened() as store:
        await store.emit(1, 2, 3)
    _spoil(state_dir, f"UPDATE segment_event SET {column}='soon' WHERE id & 3 = 2")
    async with opened() as store:
        with pytest.raises(DamagedError, match="other types"):
            await store.events()
        await store.outbox.heal()
        assert [event.data for event in await store.events()] == [1, 3]
        assert [loss[2:4] for loss in await store.losses()] == [(2, 2)]
