"""Appending events to the table of all events, and telling where those of one type are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError

from nexus_agent.protocol import Lines
from nexus_console.clocks import Clocks
from nexus_console.db.models import events, type_spans

SPAN_POSITIONS: Final = 1000
"""Positions that a type span grows to, so that lone events do not cost a row each, and whoever
looks for a rare type does not read much of what is between."""

_COLUMNS: Final = tuple(column.name for column in events.columns)
_VALUES: Final = f"({', '.join('?' * len(_COLUMNS))})"
_INSERT_SQLITE: Final = f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES {_VALUES}"  # noqa: S608 - our own column names
_CHUNK_SQLITE: Final = 200
"""Rows that one statement inserts: a third of the time is saved; more saves nothing more."""
_INSERT_CHUNK_SQLITE: Final = _INSERT_SQLITE + f", {_VALUES}" * (_CHUNK_SQLITE - 1)
_COPY_POSTGRESQL: Final = f"COPY events ({', '.join(_COLUMNS)}) FROM STDIN"
_MAX_ROWS: Final = 5_000
"""Rows that are kept in memory."""

_Row: TypeAlias = tuple[int, int, int, int, int, str, int, int, int, str]
_Key: TypeAlias = tuple[int, str, int]


@dataclass(slots=True)
class Device:
    """A box within a transaction. events: the position of its newest event.

    heard: when it last gave a sign of life, ns; None if not in this transaction. ordered: a new
    epoch has been ordered from it already.
    """

    id: int
    name: str
    events: int
    heard: int | None = None
    ordered: bool = False


@dataclass(slots=True)
class _Span:
    first: int
    last: int
    count: int
    first_time: int
    last_time: int
    stored: bool = False

    def grow(self, other: _Span) -> None:
        self.last = other.last
        self.count += other.count
        self.first_time = min(self.first_time, other.first_time)
        self.last_time = max(self.last_time, other.last_time)


class EventLog:
    """Collects the events of one transaction; `flush` writes them."""

    def __init__(self, connection: Connection, clocks: Clocks) -> None:
        self._connection = connection
        self._clocks = clocks
        self._rows: list[_Row] = []
        self._newest: dict[_Key, _Span | None] = {}
        self._changed: dict[tuple[_Key, int], _Span] = {}
        self.count = 0

    def append(self, device: Device, stream: int, epoch: int, part: Lines, received: int) -> int:
        """Give *part* the next positions of *device*; return the first. stream is its code."""
        start = device.events + 1
        times, clocks = self._clocks.judge(device.id, stream, start, part, received)
        size = len(part.lines)
        self._rows += zip(
            repeat(device.id),
            repeat(stream),
            range(start, start + size),
            repeat(epoch),
            range(part.first, part.first + size),
            part.types,
            times,
            repeat(received),
            clocks,
            part.lines,
        )
        for kind, span in _spans(start, part.types, times).items():
            self._note((device.id, kind, stream), span)
        device.events += size
        self.count += size
        if len(self._rows) >= _MAX_ROWS:
            self._write_rows()
        return start

    def flush(self) -> None:
        """Write what has been appended."""
        self._write_rows()
        self._save_spans()

    def _write_rows(self) -> None:
        rows, self._rows = self._rows, []
        if rows and self._connection.dialect.name == "sqlite":
            _insert(self._connection, rows)
        elif rows:
            _copy(self._connection, rows)

    def _note(self, key: _Key, span: _Span) -> None:
        """Count *span* in: as a row of its own, or into the newest one while that is small."""
        newest = self._newest[key] if key in self._newest else self._load(key)
        if newest is not None and span.last - newest.first < SPAN_POSITIONS:
            newest.grow(span)
            span = newest
        self._newest[key] = self._changed[key, span.first] = span

    def _load(self, key: _Key) -> _Span | None:
        device_id, kind, stream = key
        columns = type_spans.c
        row = self._connection.execute(
            select(
                columns.first,
                columns.last,
                columns.count,
                columns.first_time,
                columns.last_time,
            )
            .filter_by(device_id=device_id, type=kind, stream=stream)
            .order_by(columns.first.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else _Span(*row, stored=True)

    def _save_spans(self) -> None:
        added: list[dict[str, Any]] = []
        grown: list[dict[str, Any]] = []
        for ((device_id, kind, stream), first), span in self._changed.items():
            key = {"device_id": device_id, "type": kind, "stream": stream, "first": first}
            values = {
                "last": span.last,
                "count": span.count,
                "first_time": span.first_time,
                "last_time": span.last_time,
            }
            if span.stored:
                grown.append({**{f"at_{name}": value for name, value in key.items()}, **values})
            else:
                added.append(key | values)
                span.stored = True
        if added:
            self._connection.execute(insert(type_spans), added)
        if grown:
            self._connection.execute(_GROW, grown)
        self._changed.clear()


_GROW: Final = update(type_spans).where(
    type_spans.c.device_id == bindparam("at_device_id"),
    type_spans.c.type == bindparam("at_type"),
    type_spans.c.stream == bindparam("at_stream"),
    type_spans.c.first == bindparam("at_first"),
)


def _spans(start: int, types: Sequence[str], times: Sequence[int]) -> dict[str, _Span]:
    """A span for each type, of events whose positions begin at *start*."""
    if len(set(types)) == 1:
        end = start + len(types) - 1
        return {types[0]: _Span(start, end, len(types), min(times), max(times))}
    found: dict[str, _Span] = {}
    for position, (kind, time) in enumerate(zip(types, times, strict=True), start):
        span = _Span(position, position, 1, time, time)
        if kind in found:
            found[kind].grow(span)
        else:
            found[kind] = span
    return found


def _insert(connection: Connection, rows: list[_Row]) -> None:
    end = len(rows) - len(rows) % _CHUNK_SQLITE
    for start in range(0, end, _CHUNK_SQLITE):
        values = tuple(chain.from_iterable(rows[start : start + _CHUNK_SQLITE]))
        connection.exec_driver_sql(_INSERT_CHUNK_SQLITE, values)
    if rest := rows[end:]:
        connection.exec_driver_sql(_INSERT_SQLITE, rest)


def _copy(connection: Connection, rows: list[_Row]) -> None:
    """COPY is the fastest way into PostgreSQL, and faster yet as text that is made here."""
    driver: Any = connection.connection.driver_connection  # psycopg's, an optional dependency
    errors = connection.dialect.loaded_dbapi.Error
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY_POSTGRESQL) as copy:
            copy.write("".join(map(_copy_line, rows)))
    except errors as error:
        raise DBAPIError.instance(_COPY_POSTGRESQL, None, error, errors) from None


def _copy_line(row: _Row) -> str:
    device, stream, position, epoch, seq, kind, time, received, clock, line = row
    return (
        f"{device}\t{stream}\t{position}\t{epoch}\t{seq}\t{_copy_text(kind)}\t{time}\t{received}"
        f"\t{clock}\t{_copy_text(line)}\n"
    )


def _copy_text(text: str) -> str:
    """*text* as a field of COPY's text format (PostgreSQL 15 manual, COPY, "Text Format")."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isprintable():
        return text
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
