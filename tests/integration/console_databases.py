"""Fixtures: an empty console database of each kind. Loaded by `pytest_plugins`, never imported."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, text
from tests.integration.console_messages import Store

from nexus_console.db.engine import Database


def missing(what: str) -> NoReturn:
    """Skip, but not where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must have it")
    pytest.skip(f"{what} is not installed")


def postgresql_bin() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server on a Unix socket; the URL of its first database."""
    programs = postgresql_bin()
    if programs is None:
        missing("PostgreSQL")
    # Not in pytest's folder: that is root's alone, and the server runs as another user.
    with TemporaryDirectory(prefix="nexus-pg-") as folder:
        yield from _serve(programs, Path(folder))


def _serve(programs: Path, folder: Path) -> Iterator[str]:
    # It refuses to run as root.
    owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    data = folder / "data"
    data.mkdir()
    if os.geteuid() == 0:
        os.chown(data, owner.pw_uid, owner.pw_gid)
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def do(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd="/",
            user=owner.pw_uid if os.geteuid() == 0 else None,
        )

    do(f"{programs}/initdb", "-D", str(data), "-U", "nexus", "--auth=trust", "-E", "UTF8", "-N")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=40"
    log = folder / "log"
    control = (f"{programs}/pg_ctl", "-D", str(data), "-w")
    do(*control, "-l", str(log), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://nexus@/postgres?host={folder}"
    finally:
        do(*control, "-m", "immediate", "stop")


def fresh_postgresql(server: str, name: str) -> str:
    """A new empty database on *server*; its URL."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgresql"])
def console_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/console.db"
    server = request.getfixturevalue("postgresql")
    return fresh_postgresql(server, f"test_{secrets.token_hex(6)}")


@pytest.fixture
def console_database(console_url: str) -> Iterator[Database]:
    database = Database(console_url)
    database.prepare()
    yield database
    database.close()


@pytest.fixture
def store(console_database: Database) -> Store:
    return Store(console_database)
