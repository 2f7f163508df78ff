"""The loss ledger: what was promised and will never be sent, and whether the console knows.

A row is written in the very transaction that drops the events. Later a `delivery.loss` event on the
alert stream tells the console of it; where that event itself is dropped, the row counts as untold
again. All functions run on the writer thread, inside its transaction.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from nexus_agent.protocol import Loss, Stream, format_time

QUOTA: Final = "disk quota"
TOO_OLD: Final = "older than its time to live"
DAMAGED: Final = "damaged on the disk"
GONE: Final = "no longer in the box's history"
VANISHED: Final = "lost with the database"

CAUSES: Final = (QUOTA, TOO_OLD, DAMAGED, GONE, VANISHED)

KEPT: Final = 1000
"""Told losses that stay for people at the box."""

_COLUMNS: Final = "id, stream, epoch, first, last, first_time, last_time, cause"


@dataclass(frozen=True, slots=True)
class Entry:
    """One range of one stream and epoch. Times are wall times in ns, None where not known."""

    stream: Stream
    epoch: int
    first: int
    last: int
    first_time: int | None
    last_time: int | None
    cause: str

    def document(self) -> dict[str, Any]:
        """`data` of its `delivery.loss` event."""
        return Loss(
            stream=self.stream,
            epoch=self.epoch,
            first=self.first,
            last=self.last,
            first_time=None if self.first_time is None else format_time(self.first_time),
            last_time=None if self.last_time is None else format_time(self.last_time),
            cause=self.cause,
        ).model_dump(mode="json", exclude_none=True)


def write(connection: sqlite3.Connection, entry: Entry) -> None:
    """Note a loss; it lengthens the untold one that ends where it begins."""
    extended = connection.execute(
        "UPDATE loss SET last=?, last_time=? WHERE id=(SELECT id FROM loss WHERE stream=? "
        "AND epoch=? AND cause=? AND reported IS NULL AND last=? ORDER BY id DESC LIMIT 1)",
        (entry.last, entry.last_time, entry.stream, entry.epoch, entry.cause, entry.first - 1),
    )
    if extended.rowcount:
        return
    connection.execute(
        "INSERT INTO loss (stream, epoch, first, last, first_time, last_time, cause) "
        "VALUES (?,?,?,?,?,?,?)",
        (
            entry.stream,
            entry.epoch,
            entry.first,
            entry.last,
            entry.first_time,
            entry.last_time,
            entry.cause,
        ),
    )


def untold(connection: sqlite3.Connection, limit: int) -> list[tuple[int, Entry]]:
    """Losses that no sealed event tells of, with their ids, the oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM loss WHERE reported IS NULL ORDER BY id LIMIT ?",  # noqa: S608
        (limit,),
    )
    return [(row[0], _entry(row)) for row in rows]


def mark_told(identities: list[tuple[int, int]], connection: sqlite3.Connection) -> None:
    """The alert that was sealed last in this transaction tells of these losses.

    A loss that has grown since it was read, as (id, last) says, is left untold.
    """
    edge = connection.execute("SELECT max(id) FROM segment_alert").fetchone()[0]
    connection.executemany(
        "UPDATE loss SET reported=? WHERE id=? AND last=?",
        [(edge, identity, last) for identity, last in identities],
    )


def untell(connection: sqlite3.Connection, first: int, last: int) -> None:
    """The alerts whose segments begin at edges *first* to *last* are dropped: tell again."""
    connection.execute(
        "UPDATE loss SET reported=NULL WHERE reported BETWEEN ? AND ?", (first, last)
    )


def untell_over(connection: sqlite3.Connection, first: int, last: int) -> None:
    """Alerts from edge *first* to *last* are nowhere any more: what they told is told again.

    A segment is known by its first event, and the one before *first* may reach beyond it.
    """
    (before,) = connection.execute(
        "SELECT max(reported) FROM loss WHERE reported <= ?", (first,)
    ).fetchone()
    untell(connection, first if before is None else before, last)


def tell_again(
    connection: sqlite3.Connection, stream: Stream, epoch: int, first: int, last: int
) -> list[tuple[int, int]]:
    """Have known losses told anew; the parts of *first* to *last* that are none, in order."""
    touching = (stream, epoch, last, first)
    connection.execute(
        "UPDATE loss SET reported=NULL WHERE stream=? AND epoch=? AND first<=? AND last>=?",
        touching,
    )
    rows = connection.execute(
        "SELECT first, last FROM loss WHERE stream=? AND epoch=? AND first<=? AND last>=? "
        "ORDER BY first",
        touching,
    )
    unknown: list[tuple[int, int]] = []
    for begin, end in rows:
        if begin > first:
            unknown.append((first, begin - 1))
        first = max(first, end + 1)
    return [*unknown, (first, last)] if first <= last else unknown


TOLD_BY: Final = (
    "SELECT DISTINCT reported FROM loss WHERE stream=? AND epoch=? AND first<=? AND last>=? "
    "AND reported IS NOT NULL ORDER BY reported"
)
"""The edges of the alerts that tell of losses within a range: stream, epoch, its last and first."""


def forget(connection: sqlite3.Connection, released: dict[Stream, int]) -> None:
    """Drop the oldest told losses beyond `KEPT` that the console has taken in for good.

    released: the edge of each stream up to which nothing waits.
    """
    for stream, edge in released.items():
        connection.execute(
            "DELETE FROM loss WHERE stream=? AND reported <= ? AND (epoch << 44 | last) <= ? "
            "AND id <= (SELECT max(id) FROM loss) - ?",
            (stream, released[Stream.ALERT], edge, KEPT),
        )


def _entry(row: tuple[Any, ...]) -> Entry:
    _, stream, epoch, first, last, first_time, last_time, cause = row
    return Entry(Stream(stream), epoch, first, last, first_time, last_time, cause)


NEWEST: Final = f"SELECT {_COLUMNS}, reported FROM loss ORDER BY id DESC LIMIT ?"  # noqa: S608
"""The newest losses, for people at the box."""


def shown(row: tuple[Any, ...]) -> tuple[Entry, bool]:
    """A row of `NEWEST`: the loss, and whether an event tells of it."""
    return _entry(row[:8]), row[8] is not None


BY_CAUSE: Final = "SELECT cause, sum(last - first + 1) FROM loss GROUP BY cause"
