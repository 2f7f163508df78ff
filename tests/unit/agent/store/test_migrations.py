"""The migrations build what the models say; what only they need is imported only for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import nexus_migrations
from nexus_agent.store.database import Database
from nexus_agent.store.models import Base


def test_the_heads_that_the_programs_know_are_the_scripts_heads() -> None:
    for which, head in nexus_migrations.HEADS.items():
        config = Config()
        folder = Path(nexus_migrations.__file__).parent / which
        config.set_main_option("script_location", str(folder))
        assert ScriptDirectory.from_config(config).get_heads() == [head]


async def test_migrations_build_exactly_the_models(state_dir: Path) -> None:
    database = Database(state_dir)
    await database.open()
    await database.close()
    engine = sqlalchemy.create_engine(f"sqlite:///{database.path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_current_database_is_opened_without_alembic_and_sqlalchemy(state_dir: Path) -> None:
    program = (
        "import asyncio, sys, pathlib; from nexus_agent.store.database import Database\n"
        "async def go():\n"
        "    database = Database(pathlib.Path(sys.argv[1]))\n"
        "    await database.open()\n"
        "    await database.close()\n"
        "asyncio.run(go()); print('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program, str(state_dir)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["True True", "False False"]
