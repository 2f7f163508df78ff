"""Writing events in bulk, by the way that each database is fastest with.

This is the hot path: it speaks to the driver, and SQLAlchemy only lends the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Connection, insert
from sqlalchemy.exc import DBAPIError

from nexus_console.db.models import blocks, events

_COLUMNS: Final = tuple(column.name for column in events.columns)
_INSERT: Final = f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - our own column names
_AT_ONCE: Final = (256, 64, 16, 4, 1)
"""Events in a row that SQLite takes in one statement. Many at once save a third of the time; and
after each statement this thread has to get hold of the interpreter again."""
_FIRST_OWN: Final = 8
"""Parameters 1 to 7 are what these events share; each has three of its own behind them."""
_INSERT_SOME: Final = {
    size: _INSERT
    + ", ".join(
        # device, stream, position, epoch, seq, type, time, received, clock, line, block
        f"(?1, ?2, ?3 + {n}, ?4, ?5 + {n}, ?{own}, ?{own + 1}, ?6, ?{own + 2}, '', ?7)"
        for n, own in enumerate(range(_FIRST_OWN, _FIRST_OWN + 3 * size, 3))
    )
    for size in _AT_ONCE
}
_COPY: Final = f"COPY events ({', '.join(_COLUMNS)}) FROM STDIN"

_Row: TypeAlias = tuple[int, int, int, int, int, str, int, int, int, str, int]


class Run(NamedTuple):
    """Events of one stream and epoch whose positions and sequences are consecutive."""

    device_id: int
    stream: int
    position: int
    epoch: int
    seq: int
    received: int
    types: Sequence[str]
    times: Sequence[int]
    clocks: Sequence[int]
    payload: bytes

    def rows(self) -> Iterator[_Row]:
        size = len(self.types)
        return zip(
            repeat(self.device_id),
            repeat(self.stream),
            range(self.position, self.position + size),
            repeat(self.epoch),
            range(self.seq, self.seq + size),
            self.types,
            self.times,
            repeat(self.received),
            self.clocks,
            repeat(""),
            repeat(self.position),
        )

    def block(self) -> dict[str, Any]:
        """The row of `blocks` with their lines."""
        return {
            "device_id": self.device_id,
            "stream": self.stream,
            "first": self.position,
            "last": self.position + len(self.types) - 1,
            "payload": self.payload,
        }


def insert_runs(connection: Connection, runs: Sequence[Run]) -> None:
    """Write *runs* and their lines. Raises SQLAlchemyError as any other statement does."""
    if not runs:
        return
    connection.execute(insert(blocks), [run.block() for run in runs])
    driver: Any = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi.Error
    write = _insert if connection.dialect.name == "sqlite" else _copy
    try:
        with closing(driver.cursor()) as cursor:
            write(cursor, runs)
    except errors as error:
        raise DBAPIError.instance(_INSERT, None, error, errors) from None


def _insert(cursor: Any, runs: Sequence[Run]) -> None:
    for run in runs:
        start = 0
        while left := len(run.types) - start:
            size = next(size for size in _AT_ONCE if size <= left)
            part = slice(start, start + size)
            own = zip(run.types[part], run.times[part], run.clocks[part], strict=True)
            shared = (
                run.device_id,
                run.stream,
                run.position + start,
                run.epoch,
                run.seq + start,
                run.received,
                run.position,
            )
            cursor.execute(_INSERT_SOME[size], (*shared, *chain.from_iterable(own)))
            start += size


def _copy(cursor: Any, runs: Sequence[Run]) -> None:
    with cursor.copy(_COPY) as copy:
        for run in runs:
            copy.write("".join(map(_copy_line, run.rows())))


def _copy_line(row: _Row) -> str:
    """*row* in COPY's text format, which psycopg would take far longer to make."""
    device, stream, position, epoch, seq, kind, time, received, clock, _, block = row
    return (
        f"{device}\t{stream}\t{position}\t{epoch}\t{seq}\t{_copy_text(kind)}\t{time}\t{received}"
        f"\t{clock}\t\t{block}\n"
    )


def _copy_text(text: str) -> str:
    """*text* as a field (PostgreSQL 15 manual, COPY, "Text Format")."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\t" in text or "\n" in text or "\r" in text:
        text = text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text
