"""The agent's SQLite database: one thread owns the one writing connection; people read beside it.

WAL with synchronous=FULL: only that survives a power cut. Every unit of work is one function that
runs whole on the writer thread inside one transaction, so that nothing interleaves. Reads for
people go through a second, read-only connection (aiosqlite) that never checkpoints.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiosqlite

from nexus_migrations import HEADS

if TYPE_CHECKING:
    import sqlalchemy

T = TypeVar("T")

FILE_NAME: Final = "agent.db"
_BUSY_MS: Final = 5000
_WAL_LIMIT: Final = 16 * 1024 * 1024


class StoreError(Exception):
    """The database did not do what was asked; the transaction left no trace."""


class Database:
    """`agent.db` in the state folder. Open it once; close it before the process ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="nexus-store")
        self._connection: sqlite3.Connection | None = None
        self._reader: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Create or open the file and bring its schema to the newest. Raises StoreError."""
        try:
            await self._on_writer(self._open)
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            self._reader = await aiosqlite.connect(uri, uri=True, isolation_level=None)
            await self._reader.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be opened: {error}") from error

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        new = not self.path.exists()
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=True)
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        if new:
            # Only before the first table: freed pages can be given back later.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
        self.path.chmod(0o600)
        self._connection = connection
        if self._revision(connection) != HEADS["agent"]:
            self._upgrade()
        if new:
            _sync_folder(self.path.parent)

    def _revision(self, connection: sqlite3.Connection) -> str | None:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
        return None if row is None else str(row[0])

    def _upgrade(self) -> None:
        # SQLAlchemy and Alembic cost 30 MB that a box with a current schema never pays.
        import sqlalchemy
        from alembic.util import CommandError

        from nexus_migrations import upgrade

        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}")
        # pysqlite would begin at the first INSERT only: a migration is whole or not at all.
        sqlalchemy.event.listen(engine, "connect", _autocommit)
        sqlalchemy.event.listen(engine, "begin", _begin_immediate)
        try:
            with engine.begin() as connection:
                upgrade("agent", connection)
        except CommandError as error:
            raise StoreError(
                f"{self.path}: is not of this version of the agent: {error}; "
                "install the newer one again, or use another state_dir"
            ) from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreError(f"{self.path}: cannot be migrated: {error}") from error
        finally:
            engine.dispose()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on the writer thread in one transaction; it is durable on return.

        An exception of *work* rolls it back. SQLite's own come as StoreError.
        """
        return await self._on_writer(lambda: self._transact(work))

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise StoreError(f"{self.path}: is closed")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return result

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of one short SELECT on the read-only connection."""
        if self._reader is None:
            raise StoreError(f"{self.path}: is closed")
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    async def close(self) -> None:
        """Finish what is under way, fold the WAL into the file and close both connections."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        await self._on_writer(self._close)
        self._writer.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _autocommit(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _sync_folder(folder: Path) -> None:
    """Make the new file's name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
