"""The outbox's share of the disk: one hard quota over database, write-ahead log and reserve.

The database may grow to what is left of the quota beside the other two. Rows are dropped before it
would grow beyond: free pages inside the file are used again, so the file never passes its share.
The reserve is a file that is given up when the disk itself is full, so that there is room for the
write-ahead log of the deletes that help.

`max_page_count` alone would not do: it does not count the write-ahead log, is forgotten with each
connection and cannot be below the present size (sqlite.org/pragma.html).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nexus_agent.protocol import Stream
from nexus_agent.store import ledger, segments
from nexus_agent.store.errors import FullError
from nexus_agent.store.positions import Positions

MEGABYTE: Final = 1_000_000
_LARGEST_RESERVE: Final = 4 * 1024 * 1024
_LARGEST_LOG: Final = 16 * 1024 * 1024
_LARGEST_STEP: Final = 4 * 1024 * 1024
_PAGE: Final = 4096
_ROW_BYTES: Final = 200
"""What a segment costs beside its payload, rounded up; a payload is rounded up to whole pages."""
_SLACK: Final = 256 * 1024
"""Dropped at once beyond what is needed, so that not every commit has to look for victims."""
_VICTIMS: Final = 64

URGENCY: Final = {stream: rank for rank, stream in enumerate(Stream)}


class Space:
    """Used on the writer thread only, but for `used`."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        self._file = folder / "agent.db"
        self._log = folder / "agent.db-wal"
        self._reserve = folder / "reserve"
        self.quota_bytes = quota_bytes
        self._reserve_bytes = min(_LARGEST_RESERVE, quota_bytes // 16)
        self.log_bytes = min(_LARGEST_LOG, quota_bytes // 4)
        self.database_bytes = quota_bytes - self._reserve_bytes - self.log_bytes
        self.step_bytes = min(_LARGEST_STEP, self.log_bytes // 4)
        """What one transaction deletes, or moves, at most: all of it may go through the log, for
        SQLite overwrites what it deletes where it was built so."""

    def used(self) -> int:
        """Bytes of the three files together."""
        return sum(_size(path) for path in (self._file, self._log, self._reserve))

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Set the limits that SQLite keeps itself: a second fence behind `make_room`."""
        # The file is cut to this when it starts anew, so that its size tells how long the log is.
        connection.execute(f"PRAGMA journal_size_limit={self.log_bytes // 2}")
        connection.execute(f"PRAGMA wal_autocheckpoint={self.log_bytes // 4 // _PAGE}")
        connection.execute(f"PRAGMA max_page_count={self.database_bytes // _PAGE}")

    def keep_log_short(self, connection: sqlite3.Connection) -> None:
        """Start the write-ahead log anew where readers have kept SQLite from doing it."""
        if _size(self._log) > self.log_bytes // 2:
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    # -- the reserve -------------------------------------------------------------------------

    def keep_reserve(self) -> bool:
        """Have the reserve on the disk; False where the disk has no room for it."""
        if _size(self._reserve) == self._reserve_bytes:
            return True
        free = os.statvfs(self._file.parent)
        if free.f_bavail * free.f_frsize < 2 * self._reserve_bytes:
            return False
        try:
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._reserve_bytes)
        except OSError:
            self.give_up_reserve()
            return False
        return True

    def give_up_reserve(self) -> None:
        """Give the reserve's room to the write-ahead log."""
        try:
            self._reserve.unlink(missing_ok=True)
        except OSError:
            return  # on a read-only disk there is nothing to win

    # -- room --------------------------------------------------------------------------------

    def make_room(
        self, connection: sqlite3.Connection, at: Positions, payload: int, stream: Stream
    ) -> None:
        """Drop what must go, in its order, before *payload* bytes of *stream* are inserted.

        History goes first; then what waits, from the logs up to *stream* itself but nothing more
        urgent, each the oldest first, with its loss written down. Raises FullError if that is not
        enough: the rest of the quota is taken by what is more urgent.
        """
        wanted = payload + _ROW_BYTES + _PAGE - self._free(connection)
        if wanted <= 0:
            return
        wanted += min(_SLACK, self.database_bytes // 16)
        wanted -= self.drop_history(connection, at, wanted)
        for victim in reversed(Stream):
            if URGENCY[victim] < URGENCY[stream]:
                break
            if wanted > 0:
                wanted -= _drop_waiting(connection, at, victim, wanted)
        if self._free(connection) < payload + _ROW_BYTES:
            raise FullError(
                f"the quota of {self.quota_bytes // MEGABYTE} MB is used up by events that are "
                f"more urgent than {stream}"
            )

    def drop_history(self, connection: sqlite3.Connection, at: Positions, wanted: int) -> int:
        """Drop delivered segments, the oldest first whatever their stream; bytes that it freed."""
        freed = 0
        while freed < wanted:
            oldest = min(
                (
                    (row[0], stream)
                    for stream in Stream
                    if (row := _oldest_delivered(connection, at, stream)) is not None
                ),
                default=None,
            )
            if oldest is None:
                break
            stream = oldest[1]
            span = 0, at.released(stream)
            freed += drop(connection, stream, span, wanted - freed)
        return freed

    def shrink(self, connection: sqlite3.Connection, at: Positions) -> bool:
        """Bring a file that is larger than its share a step nearer to it; whether to go on."""
        used = (_pages(connection, "page_count") - _pages(connection, "freelist_count")) * _PAGE
        wanted = step = min(used - self.database_bytes, self.step_bytes)
        if step <= 0:
            return False
        wanted -= self.drop_history(connection, at, wanted)
        for victim in reversed(Stream):
            if wanted > 0:
                wanted -= _drop_waiting(connection, at, victim, wanted)
        return wanted < step

    def give_back(self, connection: sqlite3.Connection) -> bool:
        """Give a step's worth of free pages back to the disk; False when few are left."""
        free, all_pages = _pages(connection, "freelist_count"), _pages(connection, "page_count")
        over = all_pages * _PAGE > self.database_bytes
        if not over and (free * _PAGE < _LARGEST_LOG or free * 4 < all_pages):
            return False
        connection.execute(f"PRAGMA incremental_vacuum({self.step_bytes // _PAGE})").fetchall()
        self.keep_log_short(connection)
        return free > 0

    def _free(self, connection: sqlite3.Connection) -> int:
        used = _pages(connection, "page_count") - _pages(connection, "freelist_count")
        return self.database_bytes - used * _PAGE


def _pages(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _oldest_delivered(
    connection: sqlite3.Connection, at: Positions, stream: Stream
) -> tuple[int] | None:
    row: tuple[int] | None = connection.execute(
        segments.OLDEST[stream], (0, at.released(stream))
    ).fetchone()
    return row


def _drop_waiting(
    connection: sqlite3.Connection, at: Positions, stream: Stream, wanted: int
) -> int:
    freed = 0
    for span in at.waiting(stream):
        if freed >= wanted:
            break
        freed += drop(connection, stream, span, wanted - freed, ledger.QUOTA)
    return freed


def drop(
    connection: sqlite3.Connection,
    stream: Stream,
    span: tuple[int, int],
    wanted: int,
    cause: str | None = None,
) -> int:
    """Delete the oldest segments within *span* until *wanted* bytes are free; bytes that it freed.

    cause: why they are lost, which is written down; None for what was delivered.
    """
    freed = 0
    while freed < wanted:
        rows = connection.execute(segments.SIZES[stream], (*span, _VICTIMS)).fetchall()
        chosen: list[tuple[int, ...]] = []
        for row in rows:
            if freed >= wanted:
                break
            freed += row[5] + _ROW_BYTES
            chosen.append(row)
        if not chosen:
            break
        if cause is not None:
            declare(connection, stream, chosen, cause)
        connection.execute(segments.DELETE[stream], (chosen[0][0], chosen[-1][0]))
    return freed


def declare(
    connection: sqlite3.Connection, stream: Stream, rows: list[tuple[int, ...]], cause: str
) -> None:
    """Write the loss of these rows of `segments.SIZES` down, before they are dropped."""
    for run in _runs(rows):
        ledger.write(
            connection,
            ledger.Entry(
                stream,
                segments.epoch_of(run[0][0]),
                segments.sequence(run[0][0]),
                run[-1][1],
                run[0][3],
                run[-1][4],
                cause,
            ),
        )
    if stream is Stream.ALERT:
        ledger.untell(connection, rows[0][0], rows[-1][0])


def _runs(rows: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """*rows* in runs of consecutive sequences."""
    run = [rows[0]]
    for row in rows[1:]:
        if segments.sequence(row[0]) == run[-1][1] + 1:
            run.append(row)
        else:
            yield run
            run = [row]
    yield run


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
