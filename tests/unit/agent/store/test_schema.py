"""A database that a newer version has migrated, in the hands of this one: after a rollback.

The newer version is this one with a migration more, in a folder and a process of its own.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from tests.unit.agent.store.conftest import Opener

import nexus_migrations
from nexus_agent.protocol import Stream
from nexus_agent.store.database import Database
from nexus_agent.store.errors import SchemaError

KNOWN = nexus_migrations.HEADS["agent"]
NEWER = f"{int(KNOWN) + 1:04}"

MIGRATION = f"""
import sqlalchemy as sa
from alembic import op

revision = "{NEWER}"
down_revision = "{KNOWN}"
branch_labels = None
depends_on = None
compatible_from = "%s"


def upgrade() -> None:
    op.create_table("vehicle", sa.Column("id", sa.Integer(), primary_key=True))
"""

PROGRAM = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[1])
from nexus_agent.clock import Clock
from nexus_agent.protocol import Stream
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox

async def live():
    database = Database(pathlib.Path(sys.argv[2]))
    await database.open()
    outbox = Outbox(database, "box-1", Clock())
    await outbox.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run())
        await outbox.emit("test", [("test.value", "from the newer one")], Stream.EVENT)
        outbox.close()
    await outbox.remember()
    await database.close()

asyncio.run(live())
"""


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder with `nexus_migrations` as the newer version has it, but for its new migration."""
    package = tmp_path / "newer" / "nexus_migrations"
    shutil.copytree(Path(nexus_migrations.__file__).parent, package)
    heads = (package / "__init__.py").read_text("utf-8")
    heads = heads.replace(f'"agent": "{KNOWN}"', f'"agent": "{NEWER}"')
    (package / "__init__.py").write_text(heads, "utf-8")
    return package


def live(newer: Path, state_dir: Path, compatible_from: str) -> None:
    """The newer version runs once: migrates, emits one event, stops."""
    script = newer / "agent" / "versions" / f"{NEWER}_vehicle.py"
    script.write_text(MIGRATION % compatible_from, "utf-8")
    command = [sys.executable, "-c", PROGRAM, str(newer.parent), str(state_dir)]
    subprocess.run(command, check=True, timeout=60)


def pragma(state_dir: Path, name: str) -> int:
    with closing(sqlite3.connect(state_dir / "agent.db")) as connection:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def revision(state_dir: Path) -> str:
    with closing(sqlite3.connect(state_dir / "agent.db")) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


async def test_a_rolled_back_version_goes_on_with_what_the_newer_one_wrote(
    newer: Path, state_dir: Path, opened: Opener
) -> None:
    async with opened() as store:
        await store.emit("before")
    live(newer, state_dir, KNOWN)
    assert (revision(state_dir), pragma(state_dir, "user_version")) == (NEWER, int(KNOWN))

    async with opened() as store:
        await store.emit("after")
        waiting = await store.waiting()
        assert [event.data for event in waiting] == ["before", "from the newer one", "after"]
        await store.acknowledge(3)
        assert await store.waiting() == []
        assert store.outbox.epoch == 1
    assert revision(state_dir) == NEWER, "the newer one finds its schema again"


async def test_a_schema_that_this_version_cannot_run_on_is_refused_and_left_alone(
    newer: Path, state_dir: Path, opened: Opener
) -> None:
    live(newer, state_dir, NEWER)
    before = (state_dir / "agent.db").read_bytes()
    database = Database(state_dir)
    with pytest.raises(SchemaError, match=rf"needs an agent of schema {NEWER} or newer.*{KNOWN}"):
        await database.open()
    await database.close()
    assert (state_dir / "agent.db").read_bytes() == before


async def test_a_newer_schema_of_which_nobody_wrote_down_who_can_use_it_is_refused(
    newer: Path, state_dir: Path
) -> None:
    live(newer, state_dir, KNOWN)
    with closing(sqlite3.connect(state_dir / "agent.db")) as connection:
        connection.execute("PRAGMA user_version=0")
    database = Database(state_dir)
    with pytest.raises(SchemaError, match=r"agent\.db: is not of this version of the agent: "):
        await database.open()
    await database.close()


async def test_a_database_says_from_its_first_day_which_versions_can_use_it(
    state_dir: Path, opened: Opener
) -> None:
    async with opened():
        pass
    assert pragma(state_dir, "user_version") == int(KNOWN)
    assert pragma(state_dir, "auto_vacuum") == 2, "incremental, which only a new file can become"


async def test_so_does_one_that_was_salvaged(state_dir: Path, opened: Opener) -> None:
    async with opened() as store:
        await store.emit("kept")
    with closing(sqlite3.connect(state_dir / "agent.db")) as connection, connection:
        connection.execute("PRAGMA user_version=0")
        connection.execute("DELETE FROM alembic_version")
    async with opened() as store:
        assert [event.data for event in await store.events(Stream.EVENT)] == ["kept"]
    assert list(state_dir.glob("agent.db.damaged-*"))
    assert pragma(state_dir, "user_version") == int(KNOWN)
    assert pragma(state_dir, "auto_vacuum") == 2


async def test_a_salvage_after_a_rollback_keeps_the_events(
    newer: Path, state_dir: Path, opened: Opener
) -> None:
    live(newer, state_dir, KNOWN)
    with closing(sqlite3.connect(state_dir / "agent.db")) as connection, connection:
        connection.execute("DELETE FROM alembic_version")
    async with opened() as store:
        assert [event.data for event in await store.waiting()] == ["from the newer one"]
    assert (revision(state_dir), pragma(state_dir, "user_version")) == (KNOWN, int(KNOWN))


def scripts() -> list[Script]:
    """The agent's migrations, oldest first."""
    config = Config()
    folder = Path(nexus_migrations.__file__).parent / "agent"
    config.set_main_option("script_location", str(folder))
    return [*ScriptDirectory.from_config(config).walk_revisions()][::-1]


@pytest.mark.parametrize("script", scripts(), ids=lambda script: script.revision)
def test_each_migration_says_whose_code_can_run_on_it(script: Script) -> None:
    assert script.module.compatible_from in [known.revision for known in scripts()]
    assert script.module.compatible_from <= script.revision


def test_what_a_migration_took_away_does_not_come_back() -> None:
    needed = [script.module.compatible_from for script in scripts()]
    assert needed == sorted(needed)
