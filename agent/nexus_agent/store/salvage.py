"""Saving what can be saved of a damaged database into a new one.

The damaged file is set aside, never deleted in favour of a guess. Segments are carved out of its
pages by their CRC; the small tables are read as far as SQLite reads them. Every epoch that is found
is closed where its last known event is, and what is missing below that is written into the loss
ledger. A new epoch begins: nobody knows which numbers the lost events had.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from nexus_agent.protocol import MAX_SEQUENCE, Segment, Stream
from nexus_agent.store import ledger, positions, segments
from nexus_agent.store.carve import carve

REASON: Final = "the database was damaged; what could be saved of it was"
KEPT: Final = 2
"""Damaged files that are kept beside the database, the newest."""

_SMALL: Final = ("plugin_state", "command", "epoch", "position", "loss", "traffic")
_NOT_NOW: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
}
"""Reading a log takes an index beside it, which has to be written."""
_ROWS_AT_ONCE: Final = 1000
_PAYLOADS_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class Saved:
    """How much came over, segments and rows of the small tables, and where the damaged file is."""

    segments: int
    rows: int
    aside: Path


def replace(path: Path, prepare: Callable[[Path], None]) -> Saved:
    """Put a sound database in the place of the damaged one at *path*, which is set aside.

    prepare: makes the schema in a new file. Until the new one is whole and on the disk the damaged
    one stays where it is, so that a salvage that is cut off begins again. Raises OSError and
    sqlite3.Error.
    """
    new = _new(path)
    _remove(new)
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        # Only before the first table, and with the header that the change of mode writes.
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        # Nothing relies on this file before it is whole.
        connection.execute("PRAGMA synchronous=OFF")
        prepare(new)
        found = _insert_segments(connection, path)
        rows = sum(_insert(connection, table, list(_read(path, table))) for table in _SMALL)
        connection.execute("BEGIN IMMEDIATE")
        for table, broken in positions.BROKEN.items():
            connection.execute(f"DELETE FROM {table} WHERE {broken}")  # noqa: S608 - our own words
        _close_epochs(connection)
        connection.execute("COMMIT")
        _fold_log(connection)
    finally:
        connection.close()
    _sync(new)
    _sync(path.parent)
    number = _number_aside(path) + 1
    aside = _aside(path, number)
    path.rename(aside)
    _complete(path, aside)
    for old in range(1, number - KEPT + 1):
        _remove(_aside(path, old))
    return Saved(found, rows, aside)


def _fold_log(connection: sqlite3.Connection) -> None:
    """Bring all into the file itself, which is renamed without its log; `close` would not say that
    it could not. Raises sqlite3.Error.
    """
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the new database is in use")


def finish(path: Path) -> bool:
    """Complete a salvage that was cut off after the damaged file was set aside.

    False where there is none; what a salvage left that was cut off before is removed, for it begins
    again. Raises OSError.
    """
    new = _new(path)
    if path.exists():
        _remove(new)
        return False
    if not new.exists():
        return False
    _complete(path, _aside(path, max(_number_aside(path), 1)))
    return True


def _complete(path: Path, aside: Path) -> None:
    """Put the new file into the place of the one that is set aside as *aside*.

    Each step is on the disk before the next: the log leaves only once its database has left, or a
    cut would part them; the new file comes only once the old log has left, or it would be played
    into it.
    """
    _sync(path.parent)
    # The index of the log would lie about the next one.
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        log.rename(aside.with_name(f"{aside.name}-wal"))
    _sync(path.parent)
    _new(path).rename(path)
    _sync(path.parent)


def keep_payload(folder: Path, segment: Segment) -> None:
    """Keep the bytes of a segment whose CRC does not fit, for the person who looks into it."""
    kept = folder / "damaged"
    name = f"{segment.stream}-{segment.epoch}-{segment.first}-{segment.last}.segment"
    kept.mkdir(mode=0o750, exist_ok=True)
    (kept / name).write_bytes(segment.payload)
    oldest = sorted(kept.glob("*.segment"), key=lambda file: file.stat().st_mtime_ns)
    for file in oldest[:-_PAYLOADS_KEPT]:
        file.unlink()


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvage")


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _number_aside(path: Path) -> int:
    """The highest number of a file that is set aside; 0 where there is none."""
    found = (file.name.rpartition("-")[2] for file in path.parent.glob(f"{path.name}.damaged-*"))
    return max((int(number) for number in found if number.isdecimal()), default=0)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(damaged: Path, table: str) -> Iterator[tuple[list[str], tuple[Any, ...]]]:
    """Rows of a small table, up to the first that SQLite cannot read.

    Raises sqlite3.Error where it is not the file that fails but a write beside it: to be tried
    again, for what is not read now is gone.
    """
    # Read-only: it must not fold the log into the damaged file.
    connection = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
    try:
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - our own names
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield names, row
    except sqlite3.Error as error:
        if error.sqlite_errorcode in _NOT_NOW:
            raise
        return
    except UnicodeDecodeError:
        return  # SQLite's message repeats bytes of the damaged schema
    finally:
        connection.close()


def _insert(
    connection: sqlite3.Connection, table: str, rows: list[tuple[list[str], tuple[Any, ...]]]
) -> int:
    """Rows that fit the table; a damaged page may hold some that do not."""
    inserted = 0
    for names, row in rows:
        try:
            connection.execute(
                f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) "  # noqa: S608
                f"VALUES ({', '.join('?' * len(row))})",
                row,
            )
        except (sqlite3.IntegrityError, sqlite3.OperationalError):
            continue
        inserted += 1
    return inserted


def _insert_segments(connection: sqlite3.Connection, damaged: Path) -> int:
    """Every sound segment once; of two that begin alike, as re-sealing leaves them, the longer."""
    log = damaged.with_name(f"{damaged.name}-wal")
    carved = carve(damaged, log)
    while page := list(islice(carved, _ROWS_AT_ONCE)):
        connection.execute("BEGIN IMMEDIATE")
        for found in page:
            segments.replace_shorter(connection, found.segment, synced=found.synced)
        connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    count = sum(_drop_contained(connection, stream) for stream in Stream)
    connection.execute("COMMIT")
    return count


def _drop_contained(connection: sqlite3.Connection, stream: Stream) -> int:
    """Delete what lies within a longer segment; return how many are left."""
    table = segments.SEGMENT_TABLES[stream]
    reached = kept = 0
    rows = connection.execute(f"SELECT id, last FROM {table} ORDER BY id").fetchall()  # noqa: S608
    for identity, last in rows:
        edge = segments.row_id(segments.epoch_of(identity), last)
        if edge <= reached:
            connection.execute(segments.DELETE[stream], (identity, identity))
        else:
            reached, kept = edge, kept + 1
    return kept


def _close_epochs(connection: sqlite3.Connection) -> None:
    """Close every epoch that left a trace, write down what is missing in it, begin a new one."""
    traces = {1}
    for stream in Stream:
        table = segments.SEGMENT_TABLES[stream]
        traces |= {row[0] for row in connection.execute(f"SELECT DISTINCT id >> 44 FROM {table}")}  # noqa: S608
    for table, column in (("epoch", "number"), ("position", "epoch"), ("loss", "epoch")):
        traces |= {row[0] for row in connection.execute(f"SELECT {column} FROM {table}")}  # noqa: S608
    now = time.time_ns()
    for epoch in sorted(traces):
        connection.execute("INSERT OR IGNORE INTO epoch VALUES (?,?,?)", (epoch, now, "salvaged"))
        final = {stream: _last(connection, stream, epoch) for stream in Stream}
        positions.close_epoch(connection, epoch, final)
        for stream in Stream:
            _note_gaps(connection, stream, epoch, final[stream])
    positions.open_epoch(connection, max(traces) + 1, now, REASON)


def _last(connection: sqlite3.Connection, stream: Stream, epoch: int) -> int:
    """The last sequence of an epoch that anything knows of."""
    span = segments.row_id(epoch, 1), segments.row_id(epoch + 1, 0)
    known = [
        connection.execute(
            f"SELECT max(last) FROM {segments.SEGMENT_TABLES[stream]} WHERE id BETWEEN ? AND ?",  # noqa: S608
            span,
        ).fetchone(),
        connection.execute(
            "SELECT max(last) FROM loss WHERE stream=? AND epoch=?", (stream, epoch)
        ).fetchone(),
        connection.execute(
            "SELECT max(max(acknowledged, coalesce(final, 0))) FROM position "
            "WHERE stream=? AND epoch=?",
            (stream, epoch),
        ).fetchone(),
    ]
    return max(row[0] or 0 for row in known)


def _note_gaps(connection: sqlite3.Connection, stream: Stream, epoch: int, final: int) -> None:
    """Write down what is neither delivered, nor here, nor known to be lost already."""
    row = connection.execute(
        "SELECT acknowledged FROM position WHERE stream=? AND epoch=?", (stream, epoch)
    ).fetchone()
    following = (row[0] if row else 0) + 1
    span = segments.row_id(epoch, 1), segments.row_id(epoch + 1, 0)
    known = connection.execute(
        f"SELECT id & ?, last FROM {segments.SEGMENT_TABLES[stream]} WHERE id BETWEEN ? AND ? "  # noqa: S608
        "UNION ALL SELECT first, last FROM loss WHERE stream=? AND epoch=? ORDER BY 1",
        (MAX_SEQUENCE, *span, stream, epoch),
    ).fetchall()
    for first, last in [*known, (final + 1, final + 1)]:
        if first > following:
            entry = ledger.Entry(stream, epoch, following, first - 1, None, None, ledger.DAMAGED)
            ledger.write(connection, entry)
        following = max(following, last + 1)
