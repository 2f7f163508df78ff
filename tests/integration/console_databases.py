"""Fixtures: an empty console database of each kind. Loaded by `pytest_plugins`, never imported."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, text
from tests.integration.console_messages import Store

from nexus_console.db.engine import Database
from nexus_demo import postgresql as server


def missing(what: str) -> NoReturn:
    """Skip, but not where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must have it")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server on a Unix socket; the URL of its first database."""
    programs = server.find_postgresql()
    if programs is None:
        missing("PostgreSQL")
    with server.postgresql(programs) as url:
        yield url


def fresh_postgresql(first: str, name: str) -> str:
    """A new empty database on the server of *first*; its URL."""
    engine = create_engine(first, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return first.replace("/postgres?", f"/{name}?")


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """A new empty database on PostgreSQL."""
    return fresh_postgresql(postgresql, f"test_{secrets.token_hex(6)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def console_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/console.db"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def console_database(console_url: str) -> Iterator[Database]:
    database = Database(console_url)
    database.prepare()
    yield database
    database.close()


@pytest.fixture
def store(console_database: Database) -> Store:
    return Store(console_database)
