"""Segments in their tables: the SQL of the outbox, run on the writer thread or by the reader."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nexus_agent.protocol import MAX_SEQUENCE, Segment, Stream
from nexus_agent.store.errors import DamagedError

if TYPE_CHECKING:
    from nexus_agent.store.database import Database

SEGMENT_TABLES: Final = {
    Stream.ALERT: "segment_alert",
    Stream.EVENT: "segment_event",
    Stream.TELEMETRY: "segment_telemetry",
    Stream.LOG: "segment_log",
}

EPOCH_SHIFT: Final = 44
MAX_ID: Final = 2**63 - 1


def row_id(epoch: int, seq: int) -> int:
    """Row id of a segment whose first sequence is *seq*: sorts by epoch, then sequence."""
    return epoch << EPOCH_SHIFT | seq


def sequence(edge: int) -> int:
    """The sequence of an edge, or the first sequence of a row id."""
    return edge & MAX_SEQUENCE


def epoch_of(edge: int) -> int:
    """The epoch of an edge or row id."""
    return edge >> EPOCH_SHIFT


_COLUMNS: Final = "id, last, count, first_time, last_time, synced, crc, payload"
_TYPES: Final = [int, int, int, int, int, int, int, bytes]
# The table names are ours, so the statements are built from them once.
INSERT: Final = {
    stream: f"INSERT INTO {table} ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
WITHIN: Final = {
    stream: f"SELECT {_COLUMNS} FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
NEXT: Final = {
    stream: f"SELECT {_COLUMNS} FROM {table} WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
SMALL: Final = {
    stream: (
        f"SELECT {_COLUMNS} FROM {table} "  # noqa: S608
        "WHERE id > ? AND count < ? AND length(payload) < ? ORDER BY id LIMIT ?"
    )
    for stream, table in SEGMENT_TABLES.items()
}
BEFORE: Final = {
    stream: (
        f"SELECT * FROM (SELECT {_COLUMNS} FROM {table} WHERE id < ? "  # noqa: S608
        "ORDER BY id DESC LIMIT ?) ORDER BY id"
    )
    for stream, table in SEGMENT_TABLES.items()
}
CONTAINING: Final = {
    stream: f"SELECT max(id) FROM {table} WHERE id <= ?"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
PENDING: Final = {
    stream: (
        "SELECT count(*), total(count), total(length(payload)), min(first_time) "  # noqa: S608
        f"FROM {table} WHERE id BETWEEN ? AND ?"
    )
    for stream, table in SEGMENT_TABLES.items()
}
LAST: Final = {
    stream: (
        f"SELECT id, last, last_time, synced FROM {table} WHERE id BETWEEN ? AND ? "  # noqa: S608
        "ORDER BY id DESC LIMIT 1"
    )
    for stream, table in SEGMENT_TABLES.items()
}
SIZES: Final = {
    stream: (
        "SELECT id, last, count, first_time, last_time, length(payload) "  # noqa: S608
        f"FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    )
    for stream, table in SEGMENT_TABLES.items()
}
OLDEST: Final = {
    stream: f"SELECT last_time FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
EXPIRED: Final = {
    # Times that no synchronised clock has stamped prove nothing; order does.
    stream: (
        f"SELECT max(id) FROM {table} "  # noqa: S608
        "WHERE id BETWEEN ? AND ? AND synced=1 AND last_time < ?"
    )
    for stream, table in SEGMENT_TABLES.items()
}
FIRST: Final = {
    stream: f"SELECT first_time FROM {table} WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}
FIRST_SYNCED: Final = {
    stream: (
        f"SELECT last_time FROM {table} "  # noqa: S608
        "WHERE id BETWEEN ? AND ? AND synced=1 ORDER BY id LIMIT 1"
    )
    for stream, table in SEGMENT_TABLES.items()
}
BEYOND: Final = {
    # The newest segment up to an edge with which those from there on take more than so many bytes.
    stream: (
        "SELECT id FROM (SELECT id, sum(length(payload)) OVER (ORDER BY id DESC) AS size "  # noqa: S608
        f"FROM {table} WHERE id <= ?) WHERE size > ? ORDER BY id DESC LIMIT 1"
    )
    for stream, table in SEGMENT_TABLES.items()
}
DELETE: Final = {
    stream: f"DELETE FROM {table} WHERE id BETWEEN ? AND ?"  # noqa: S608
    for stream, table in SEGMENT_TABLES.items()
}


def insert(connection: sqlite3.Connection, segment: Segment, *, synced: bool) -> None:
    """Append a sealed segment. synced: whether all of its times come of a synchronised clock."""
    connection.execute(
        INSERT[segment.stream],
        (
            row_id(segment.epoch, segment.first),
            segment.last,
            segment.count,
            segment.first_time,
            segment.last_time,
            int(synced),
            segment.crc,
            segment.payload,
        ),
    )


def replace_shorter(connection: sqlite3.Connection, segment: Segment, *, synced: bool) -> None:
    """Insert a segment, unless one that begins alike and is as long is there."""
    identity = row_id(segment.epoch, segment.first)
    there = connection.execute(LAST[segment.stream], (identity, identity)).fetchone()
    if there is not None and there[1] >= segment.last:
        return
    connection.execute(DELETE[segment.stream], (identity, identity))
    insert(connection, segment, synced=synced)


async def fetch(
    database: Database, stream: Stream, sql: str, parameters: Sequence[Any], span: tuple[int, int]
) -> list[Any]:
    """Rows of `_COLUMNS`, whose ids must be within *span* and in order.

    Behind a page that is gone SQLite reads NULL, and behind a wrong key it finds other rows than it
    was asked for; neither is an error to it. Raises StoreError, and DamagedError for those.
    """
    rows = await database.read(sql, parameters)
    before = span[0] - 1
    for row in rows:
        if [type(value) for value in row] != _TYPES:
            fault = "has a row of other types than were written"
        elif not before < row[0] <= span[1]:
            fault = "is out of order"
        else:
            before = row[0]
            continue
        error = DamagedError(f"{database.path}: the table {SEGMENT_TABLES[stream]} {fault}")
        database.found_damaged(error)
        raise error
    return rows


def from_row(stream: Stream, row: Sequence[Any]) -> Segment:
    """The segment of one row of `_COLUMNS`."""
    identity, last, count, first_time, last_time, _synced, crc, payload = row
    return Segment(
        stream=stream,
        epoch=identity >> EPOCH_SHIFT,
        first=identity & MAX_SEQUENCE,
        last=last,
        count=count,
        first_time=first_time,
        last_time=last_time,
        crc=crc,
        payload=payload,
    )
