"""Damage that SQLite reads over, or tells in bytes that are no text: found, and salvaged."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.agent.store.conftest import Opener

from nexus_agent.store.database import FILE_NAME
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


OPENED_TO_BE_READ = """
import asyncio, os, sys
from pathlib import Path
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError

async def main():
    os.setuid(int(sys.argv[2]))
    database = Database(Path(sys.argv[1]))
    await database.open()
    try:
        await database.run(lambda c: c.execute("DELETE FROM epoch WHERE number=7"))
    except StoreError as error:
        print(error)
    await database.reopen()
    try:
        await database.run(lambda c: c.execute("DELETE FROM epoch WHERE number=7"))
        print(*await database.read("SELECT 'read'"))
    finally:
        await database.close()

asyncio.run(main())
"""


async def test_a_file_that_could_only_be_read_is_written_once_it_can_be(
    opened: Opener, state_dir: Path
) -> None:
    """SQLite opens such a file for reading, says nothing, and leaves it so."""
    nobody = 65_534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "state"
        async with opened() as store:
            await store.emit(1)
            shutil.copytree(state_dir, folder)  # as a power cut leaves it, log and all
        (folder / FILE_NAME).chmod(0o400)  # the agent itself makes it 0600 once it has opened it
        for path in (Path(made), folder, *folder.iterdir()):
            os.chown(path, nobody, -1)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", OPENED_TO_BE_READ, str(folder), str(nobody)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "readonly database" in done.stdout
    assert "read" in done.stdout.splitlines()[-1]
