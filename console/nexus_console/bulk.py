"""Writing events in bulk, by the way that each database is fastest with.

This is the hot path: it speaks to the driver, and SQLAlchemy only lends the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from nexus_console.db.models import events

_COLUMNS: Final = tuple(column.name for column in events.columns)
_INSERT: Final = f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES "  # noqa: S608 - our own column names
_INSERT_ROW: Final = f"{_INSERT}({', '.join('?' * len(_COLUMNS))})"
_CHUNK: Final = 100
"""Events in a row that SQLite takes in one statement: that saves a third of the time."""
_FIRST_OWN: Final = 7
"""Parameters 1 to 6 are what the events of a chunk share; each has four of its own behind them."""
_INSERT_CHUNK: Final = _INSERT + ", ".join(
    # device, stream, position, epoch, seq, type, time, received, clock, line
    f"(?1, ?2, ?3 + {n}, ?4, ?5 + {n}, ?{own}, ?{own + 1}, ?6, ?{own + 2}, ?{own + 3})"
    for n, own in enumerate(range(_FIRST_OWN, _FIRST_OWN + 4 * _CHUNK, 4))
)
_COPY: Final = f"COPY events ({', '.join(_COLUMNS)}) FROM STDIN"

_Row: TypeAlias = tuple[int, int, int, int, int, str, int, int, int, str]


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
    lines: Sequence[str]

    def rows(self, start: int = 0) -> Iterator[_Row]:
        """The rows from the *start*-th on."""
        end = len(self.lines)
        return zip(
            repeat(self.device_id),
            repeat(self.stream),
            range(self.position + start, self.position + end),
            repeat(self.epoch),
            range(self.seq + start, self.seq + end),
            self.types[start:],
            self.times[start:],
            repeat(self.received),
            self.clocks[start:],
            self.lines[start:],
        )


def insert_runs(connection: Connection, runs: Sequence[Run]) -> None:
    """Write *runs* into `events`. Raises SQLAlchemyError as any other statement does."""
    if not runs:
        return
    driver: Any = connection.connection.driver_connection
    errors = connection.dialect.loaded_dbapi.Error
    write = _insert if connection.dialect.name == "sqlite" else _copy
    try:
        with closing(driver.cursor()) as cursor:
            write(cursor, runs)
    except errors as error:
        raise DBAPIError.instance(_INSERT, None, error, errors) from None


def _insert(cursor: Any, runs: Sequence[Run]) -> None:
    rest: list[_Row] = []
    for run in runs:
        whole = len(run.lines) - len(run.lines) % _CHUNK
        for start in range(0, whole, _CHUNK):
            part = slice(start, start + _CHUNK)
            own = zip(
                run.types[part], run.times[part], run.clocks[part], run.lines[part], strict=True
            )
            shared = (
                run.device_id,
                run.stream,
                run.position + start,
                run.epoch,
                run.seq + start,
                run.received,
            )
            cursor.execute(_INSERT_CHUNK, (*shared, *chain.from_iterable(own)))
        rest += run.rows(whole)
    cursor.executemany(_INSERT_ROW, rest)


def _copy(cursor: Any, runs: Sequence[Run]) -> None:
    with cursor.copy(_COPY) as copy:
        for run in runs:
            copy.write("".join(map(_copy_line, run.rows())))


def _copy_line(row: _Row) -> str:
    """*row* in COPY's text format, which psycopg would take far longer to make."""
    device, stream, position, epoch, seq, kind, time, received, clock, line = row
    return (
        f"{device}\t{stream}\t{position}\t{epoch}\t{seq}\t{_copy_text(kind)}\t{time}\t{received}"
        f"\t{clock}\t{_copy_text(line)}\n"
    )


def _copy_text(text: str) -> str:
    """*text* as a field (PostgreSQL 15 manual, COPY, "Text Format")."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\t" in text or "\n" in text or "\r" in text:
        text = text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text
