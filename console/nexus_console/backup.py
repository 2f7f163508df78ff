"""The whole database into one file, and back into an empty database of either kind.

Users are in it, with what their passwords are checked by; log-ins are not, so everybody logs in
anew after a restore.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    LargeBinary,
    String,
    Table,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy import table as named
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeEngine

from nexus_agent.protocol import format_time
from nexus_console import __version__
from nexus_console.archive import (
    FORMAT,
    ROWS_AT_ONCE,
    VERSION,
    ArchiveError,
    Header,
    Reader,
    Writer,
    from_base64,
)
from nexus_console.db.engine import Database, reason, revision, to_head
from nexus_console.db.models import metadata, tokens
from nexus_migrations import HEADS

TABLES: Final = tuple(table for table in metadata.sorted_tables if table is not tokens)
"""What is in a backup; a table comes behind those that it refers to."""

Progress = Callable[[str], None]
"""Told now and then, in words for people, how far it is."""


class BackupError(Exception):
    """It was not done, and nothing was changed; the message says why."""


class Result(BaseModel):
    """What was written or read; bytes is the size of the file, rows are by table."""

    file: str
    bytes: int
    revision: str
    created: str
    rows: dict[str, int]


def backup(database: Database, file: Path, progress: Progress = lambda _: None) -> Result:
    """Write all that *database* holds at one moment into *file*, while others go on writing.

    Raises BackupError; then there is no new file, and an older one is as it was.
    """
    header = Header(
        format=FORMAT,
        version=VERSION,
        revision=HEADS["console"],
        created=format_time(time.time_ns()),
        console=__version__,
    )
    if database.is_sqlite and not Path(database.url.database or "").exists():
        raise BackupError(f"there is no database at {database.url.database}")
    try:
        with database.read() as connection, Writer(file, header) as archive:
            _dump(_at_one_moment(connection), archive, progress)
        size = file.stat().st_size
    except SQLAlchemyError as error:
        raise BackupError(f"the database cannot be read: {reason(error)}") from None
    except OSError as error:
        raise BackupError(f"{file}: cannot be written: {error.strerror}") from None
    return Result(
        file=str(file),
        bytes=size,
        revision=header.revision,
        created=header.created,
        rows=archive.counts,
    )


def restore(database: Database, file: Path, progress: Progress = lambda _: None) -> Result:
    """Fill *database*, which must be empty, from *file*, in one transaction.

    Raises BackupError; then the database is as it was.
    """
    try:
        with file.open("rb") as source:
            reader = Reader(source)
            header = _checked(reader)
            with database.write() as connection:
                _refuse_unless_empty(connection)
                to_head(connection)
                rows = _load(connection, reader, progress)
    except ArchiveError as error:
        raise BackupError(f"{file}: {error}") from None
    except OverflowError:
        raise BackupError(f"{file}: a number in it is too large for its column") from None
    except SQLAlchemyError as error:
        raise BackupError(f"the database refused: {reason(error)}") from None
    except OSError as error:
        raise BackupError(f"{file}: cannot be read: {error.strerror}") from None
    return Result(
        file=str(file),
        bytes=reader.size,
        revision=header.revision,
        created=header.created,
        rows=rows,
    )


def _at_one_moment(connection: Connection) -> Connection:
    # On SQLite a transaction sees one moment anyway.
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    found, head = revision(connection), HEADS["console"]
    if found != head:
        raise BackupError(
            f"the database has schema {found or 'none'}, and this console knows {head}: "
            "let the console of this version start on it first"
        )
    return connection


def _dump(connection: Connection, archive: Writer, progress: Progress) -> None:
    done = 0
    for table in TABLES:
        archive.table(table.name, table.columns.keys())
        # A payload may be 16 MB.
        payloads = any(isinstance(column.type, LargeBinary) for column in table.columns)
        at_once = 1 if payloads else ROWS_AT_ONCE
        rows = connection.execution_options(yield_per=at_once).execute(select(table))
        for part in rows.partitions():
            archive.rows(part)
            done += len(part)
            progress(f"{done:,} rows written, now {table.name}")


def _checked(reader: Reader) -> Header:
    header = reader.verify()
    head = HEADS["console"]
    if header.revision > head:
        raise ArchiveError(
            f"it was made by a newer console ({header.console}, schema {header.revision}; "
            f"this one is {__version__}, schema {head}): restore it with that one"
        )
    if header.revision != head:
        raise ArchiveError(
            f"it has schema {header.revision}, and this console restores {head} only: restore it "
            f"with console {header.console}, and upgrade then"
        )
    return header


def _refuse_unless_empty(connection: Connection) -> None:
    names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    if connection.dialect.name == "postgresql" and names:
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(map(quote, names))}")
    for name in names:
        if connection.execute(select(literal(1)).select_from(named(name)).limit(1)).first():
            raise BackupError(
                f"the database is not empty (table {name} has rows): restore into a new one"
            )


def _load(connection: Connection, reader: Reader, progress: Progress) -> dict[str, int]:
    counts: dict[str, int] = {}
    types: _Types | None = None
    done = 0
    for name, columns, rows in reader.rows():
        if name not in counts:
            types = _Types(_table(name, columns, counts))
            counts[name] = 0
        if rows and types:
            _insert(connection, types.table, types.values(rows))
            counts[name] += len(rows)
            done += len(rows)
            progress(f"{done:,} rows read, {100 * reader.position // reader.size} % of the file")
    if missing := [table.name for table in TABLES if table.name not in counts]:
        raise ArchiveError(f"table {missing[0]} is not in it")
    if connection.dialect.name == "postgresql":
        _set_sequences(connection)
    return counts


def _table(name: str, columns: list[str], before: dict[str, int]) -> Table:
    table = metadata.tables.get(name)
    # In their order: a row comes behind those that it refers to.
    if table is None or len(before) >= len(TABLES) or TABLES[len(before)] is not table:
        raise ArchiveError(f"table {name!r} is not one of schema {HEADS['console']}, or not here")
    if columns != table.columns.keys():
        raise ArchiveError(f"table {name} does not have the columns of schema {HEADS['console']}")
    return table


class _Types:
    """What a table's columns take. SQLite would take anything, and fail whoever reads it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._allowed = [_allowed(column.type, column.nullable) for column in table.columns]
        self._binary = [
            n for n, column in enumerate(table.columns) if isinstance(column.type, LargeBinary)
        ]
        self._seen: set[tuple[type, ...]] = set()

    def values(self, rows: list[list[Any]]) -> list[list[Any]]:
        """*rows* with bytes for base64. Raises ArchiveError for a value of another type."""
        for row in rows:
            kinds = tuple(map(type, row))
            # Rows of one table have few shapes.
            if kinds not in self._seen:
                self._check(kinds)
                self._seen.add(kinds)
            for n in self._binary:
                if row[n] is not None:
                    row[n] = from_base64(row[n])
        return rows

    def _check(self, kinds: Sequence[type]) -> None:
        for column, kind, allowed in zip(self.table.columns, kinds, self._allowed, strict=True):
            if kind not in allowed:
                raise ArchiveError(
                    f"table {self.table.name}, column {column.name}: {kind.__name__} is no value"
                )


def _allowed(column: TypeEngine[Any], nullable: bool | None) -> set[type]:
    match column:
        case Boolean():
            kinds: set[type] = {bool}
        case Double():
            kinds = {float, int}
        case String() | LargeBinary():
            kinds = {str}
        case _:
            kinds = {int}
    return kinds | ({type(None)} if nullable else set())


def _insert(connection: Connection, table: Table, rows: list[list[Any]]) -> None:
    names = table.columns.keys()
    if connection.dialect.name == "postgresql":
        _copy(connection, table, rows)
    else:
        connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])


def _copy(connection: Connection, table: Table, rows: list[list[Any]]) -> None:
    """Insert by COPY, which takes a tenth of the time. Raises SQLAlchemyError like any other."""
    cursor = connection.connection.cursor()
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    driver: Any = connection.dialect.loaded_dbapi
    try:
        with cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:
        raise SQLAlchemyError(str(error).splitlines()[0]) from error


def _set_sequences(connection: Connection) -> None:
    """Let new rows get ids above those that were put in."""
    for table in TABLES:
        column = table.autoincrement_column
        if column is None:
            continue
        newest = connection.execute(select(func.max(column))).scalar()
        if newest is not None:
            connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:table, :column), :newest)"),
                {"table": table.name, "column": column.name, "newest": newest},
            )
