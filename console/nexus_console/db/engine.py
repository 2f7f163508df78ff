"""Reaching the database: one writer, a few readers, and the schema brought to its head."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from nexus_migrations import HEADS, upgrade

READERS: Final = 4
BUSY_TIMEOUT_S: Final = 5.0
"""How long SQLite waits for another process, such as `nexus-console user add`."""


class Database:
    """The two ways in. Both block, so they are for threads, never for the event loop."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        # A pool of one connection is what makes all writers of this process queue up.
        self._writer = _engine(url, size=1, read_only=False)
        self._readers = _engine(url, size=READERS, read_only=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction on the one writing connection: committed at the end or not at all."""
        with self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only connection. Keep it short: an open read holds back SQLite's checkpoint."""
        with self._readers.connect() as connection:
            yield connection

    def prepare(self) -> None:
        """Bring the schema to its head. Alembic is only imported where it is behind."""
        with self._writer.begin() as connection:
            to_head(connection)

    def empty_log(self) -> bool:
        """Write SQLite's write-ahead log back and empty it: what was deleted is in there too.

        False where somebody was reading all the while. PostgreSQL sees to its own.
        """
        if not self.is_sqlite:
            return True
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            connection.close()
        return not busy

    def check(self) -> None:
        """Raise SQLAlchemyError unless the database answers."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self._readers.dispose()
        self._writer.dispose()


def reason(error: SQLAlchemyError) -> str:
    """What the driver said, in one line and without the statement."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def storable(text: str) -> str:
    """*text* as every database takes it: PostgreSQL's cannot hold NUL, UTF-8 no lone surrogate."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may have an ON CONFLICT: each database has a class of its own for it."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def to_head(connection: Connection) -> None:
    """Bring the schema behind *connection* to its head, in that connection's transaction."""
    if revision(connection) != HEADS["console"]:
        upgrade("console", connection)


def revision(connection: Connection) -> str | None:
    """The schema's revision; None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _give_to_the_service(url: URL) -> None:
    """Where root is about to make SQLite's file, make it the folder's owner's.

    `nexus-console user add`, by root and before the first start, would lock the service out of its
    own database. For files beside one that is there SQLite sees to it itself.
    """
    file = Path(url.database or "")
    if os.geteuid() != 0 or not file.is_absolute():
        return
    # What is wrong with the place is SQLite's to say, in its own words.
    with suppress(OSError):
        owner = file.parent.stat()
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def _engine(url: str, *, size: int, read_only: bool) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_pre_ping=True,
            execution_options={"postgresql_readonly": True} if read_only else {},
        )
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        # SQLAlchemy sends BEGIN itself (below): sqlite3 would only do so before a write.
        connect_args={
            "timeout": BUSY_TIMEOUT_S,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )

    @event.listens_for(engine, "do_connect")
    def _before(*_: Any) -> None:
        _give_to_the_service(engine.url)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # Before the first table, or it does nothing: events are written 15 % faster than with 4096.
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        # Only FULL survives a power cut: nothing is acknowledged before it is on the disk.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")
        # In pages: 32 MB, so that index pages are not copied back after every batch.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        if read_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
