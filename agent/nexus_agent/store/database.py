"""The agent's SQLite database: one thread owns the one writing connection; people read beside it.

WAL with synchronous=FULL: only that survives a power cut. Every unit of work is one function that
runs whole on the writer thread inside one transaction, so that nothing interleaves. Reads for
people go through a second, read-only connection (aiosqlite) that never checkpoints.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiosqlite
import structlog

from nexus_agent.store import salvage
from nexus_agent.store.errors import (
    SQLITE_ERRORS,
    DamagedError,
    SchemaError,
    StoreError,
    store_error,
)
from nexus_agent.store.space import MEGABYTE, Space
from nexus_migrations import HEADS

if TYPE_CHECKING:
    import sqlalchemy

T = TypeVar("T")

log = structlog.get_logger("database")

FILE_NAME: Final = "agent.db"
DEFAULT_QUOTA_MB: Final = 1024
_BUSY_MS: Final = 5000
_READ_ONLY: Final = "SQLITE_READONLY"
_REVISION: Final = re.compile(r"[0-9]{4}")


class Database:
    """`agent.db` in the state folder. Open it once; close it before the process ends.

    A schema newer than this code is used as it is, if the newer code wrote down that it may be.

    A file that is damaged is set aside and what can be saved of it goes into a new one: at the
    start by itself, later by `repair`, once `damage` says so. `generation` rises with each repair.
    Where `is_read_only`, `reopen` mends it.
    """

    def __init__(self, folder: Path, quota_bytes: int = DEFAULT_QUOTA_MB * MEGABYTE) -> None:
        self.path = folder / FILE_NAME
        self.space = Space(folder, quota_bytes)
        self.generation = 0
        self.damage: DamagedError | None = None
        self.is_read_only = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="nexus-store")
        self._connection: sqlite3.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._repairing = asyncio.Lock()

    async def open(self) -> None:
        """Create or open the file and bring its schema to the newest. Raises StoreError."""
        await self._on_writer(self._open_or_replace)
        await self._open_reader()

    async def _open_reader(self) -> None:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            self._reader = await aiosqlite.connect(uri, uri=True, isolation_level=None)
            await self._reader.execute("PRAGMA query_only=ON")
        except SQLITE_ERRORS as error:
            raise store_error(error, self.path) from error

    def _open_or_replace(self) -> None:
        try:
            salvage.finish(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            self._open()
        except DamagedError as error:
            self._replace(error)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._connect()
        except SQLITE_ERRORS as error:
            raise store_error(error, self.path) from error
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from error

    def _connect(self) -> None:
        new = not self.path.exists()
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=True)
        with ExitStack() as undo:
            undo.callback(connection.close)
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            if new:
                # Only before the first table: freed pages can be given back later.
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            self.space.prepare(connection)
            self.path.chmod(0o600)
            if not self._is_usable(connection):
                self._upgrade(self.path)
            if new:
                _sync_folder(self.path.parent)
            undo.pop_all()
        self._connection = connection
        self.space.keep_reserve()

    def _is_usable(self, connection: sqlite3.Connection) -> bool:
        """Whether the schema is this version's, or a newer one that this version can run on.

        Raises SchemaError for a newer one that it cannot.
        """
        revision, known = self._revision(connection), HEADS["agent"]
        if revision is None or revision <= known:
            return revision == known
        # 0 is what SQLite gives a file that nobody wrote it into: then nobody vouches for us.
        oldest = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if 0 < oldest <= int(known):
            log.warning("newer_schema", schema=revision, ours=known)
            return True
        needed = f"{oldest:04}" if oldest > 0 else revision
        raise SchemaError(
            f"{self.path}: is not of this version of the agent: its schema {revision} needs an "
            f"agent of schema {needed} or newer, and this one's is {known}; "
            "install the newer one again, or use another state_dir"
        )

    def _revision(self, connection: sqlite3.Connection) -> str | None:
        """The schema's; None in an empty file. DamagedError where tables have none that can be."""
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        row = None
        if "alembic_version" in tables:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        if not tables:
            return None
        # Of a page that is gone, SQLite may read NULL where none can be.
        if row is None or not _REVISION.fullmatch(str(row[0])):
            raise DamagedError(f"{self.path}: has tables and no revision of its schema")
        return str(row[0])

    def _upgrade(self, path: Path) -> None:
        # SQLAlchemy and Alembic cost 30 MB that a box with a current schema never pays.
        import sqlalchemy
        from alembic.util import CommandError

        from nexus_migrations import upgrade

        engine = sqlalchemy.create_engine(f"sqlite:///{path}")
        # pysqlite would begin at the first INSERT only: a migration is whole or not at all.
        sqlalchemy.event.listen(engine, "connect", _autocommit)
        sqlalchemy.event.listen(engine, "begin", _begin_immediate)
        try:
            with engine.begin() as connection:
                upgrade("agent", connection)
        except CommandError as error:
            raise SchemaError(
                f"{path}: is not of this version of the agent: {error}; "
                "install the newer one again, or use another state_dir"
            ) from error
        except sqlalchemy.exc.DBAPIError as error:
            if isinstance(error.orig, sqlite3.Error):
                raise store_error(error.orig, path) from error
            raise StoreError(f"{path}: cannot be migrated: {error}") from error
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise StoreError(f"{path}: cannot be migrated: {error}") from error
        finally:
            engine.dispose()

    # -- damage ------------------------------------------------------------------------------

    async def repair(self, error: DamagedError, generation: int) -> None:
        """Set the damaged file aside and go on with a new one that holds what could be saved.

        generation: what it was before *error*; if it has risen since, somebody else did it.
        """
        async with self._repairing:
            if generation != self.generation:
                return
            if self._reader is not None:
                await self._reader.close()
                self._reader = None
            await self._on_writer(lambda: self._replace(error))
            await self._open_reader()

    async def reopen(self) -> None:
        """Connect anew where the file could only be read, if it can be written now.

        A file that cannot be opened for writing at the moment, for want of space say, SQLite opens
        for reading, says nothing, and leaves it so. All connections of a process share the memory
        beside the log as the first has opened it, so that all are closed. Raises StoreError.
        """
        async with self._repairing:
            if not self.is_read_only or not os.access(self.path, os.W_OK):
                return
            if self._reader is not None:
                await self._reader.close()
                self._reader = None
            await self._on_writer(self._close)
            await self._on_writer(self._open)
            self.is_read_only = False
            await self._open_reader()

    def _replace(self, error: DamagedError) -> None:
        log.critical("database_damaged", error=str(error))
        self._close()
        try:
            # One that failed half way is completed: what it saved is nowhere else in one piece.
            saved = None if salvage.finish(self.path) else salvage.replace(self.path, self._upgrade)
        except SQLITE_ERRORS as failure:
            raise store_error(failure, self.path) from failure
        except OSError as failure:
            raise StoreError(f"{self.path}: cannot be salvaged: {failure.strerror}") from failure
        self._open()
        self.damage = None
        self.generation += 1
        if saved is not None:
            log.warning(
                "database_salvaged",
                segments=saved.segments,
                rows=saved.rows,
                set_aside=str(saved.aside),
            )

    # -- work --------------------------------------------------------------------------------

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on the writer thread in one transaction; it is durable on return.

        An exception of *work* rolls it back. SQLite's own come as StoreError.
        """
        return await self._on_writer(lambda: self._transact(work))

    async def tend(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on the writer thread outside of any transaction, as pragmas want it."""
        return await self._on_writer(lambda: self._outside(work))

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            try:
                self.space.keep_log_short(connection)
            except sqlite3.Error as error:
                # What is committed is committed; the log is cut behind a later commit.
                self._told(error)
            return result

        return self._outside(whole)

    def _outside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise StoreError(f"{self.path}: is closed")
        try:
            return work(self._connection)
        except SQLITE_ERRORS as error:
            self.is_read_only = getattr(error, "sqlite_errorname", "").startswith(_READ_ONLY)
            raise self._told(error) from error

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Rows of one short SELECT on the read-only connection."""
        if self._reader is None:
            raise StoreError(f"{self.path}: is closed")
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except SQLITE_ERRORS as error:
            raise self._told(error) from error
        except ValueError as error:
            # What aiosqlite says of a connection that a repair has closed meanwhile.
            raise StoreError(f"{self.path}: {error}") from error

    def _told(self, error: sqlite3.Error | UnicodeDecodeError) -> StoreError:
        told = store_error(error, self.path)
        if isinstance(told, DamagedError):
            self.found_damaged(told)
        return told

    def found_damaged(self, error: DamagedError) -> None:
        """What somebody has read cannot be right, though SQLite did not see it: salvage it."""
        if self.damage is None:
            self.damage = error

    async def shut(self) -> None:
        """Close both connections; `open` may follow."""
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        await self._on_writer(self._close)

    async def close(self) -> None:
        """Finish what is under way, fold the WAL into the file and close for good."""
        await self.shut()
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
