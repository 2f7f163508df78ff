"""The migrations make exactly the schema that the code works with, on both databases."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import nexus_migrations
from nexus_console.db.engine import Database
from nexus_console.db.models import metadata

pytest_plugins = ["tests.integration.console_databases"]


def test_migrations_make_what_the_models_say(console_database: Database) -> None:
    with console_database.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_stated_head_is_alembics() -> None:
    config = Config()
    folder = Path(nexus_migrations.__file__).parent / "console"
    config.set_main_option("script_location", str(folder))
    heads = ScriptDirectory.from_config(config).get_heads()
    assert heads == [nexus_migrations.HEADS["console"]]


def test_preparing_twice_changes_nothing(console_database: Database) -> None:
    console_database.prepare()
