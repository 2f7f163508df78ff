"""Where every stream of every epoch stands: what is sealed, acknowledged, and closed.

The one place that knows how the tables `epoch` and `position` and the newest rows of the segment
tables make up the numbering. An *edge* is a row id, epoch << 44 | sequence: it names a place in one
stream across epochs, and edges sort as the events do.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.protocol import MAX_EPOCH, MAX_SEQUENCE, Stream
from nexus_agent.store.errors import DamagedError
from nexus_agent.store.segments import LAST, epoch_of, row_id

CLOSED_TOLD = 100
"""Closed epochs with events that a birth document tells of at most, the newest."""

_STREAM = f"stream NOT IN ({', '.join(repr(str(stream)) for stream in Stream)})"
_EPOCH = f"typeof(epoch) <> 'integer' OR epoch NOT BETWEEN 1 AND {MAX_EPOCH - 1}"
BROKEN: Final = {
    "epoch": f"number NOT BETWEEN 1 AND {MAX_EPOCH - 1}",
    "position": (
        f"{_STREAM} OR {_EPOCH} OR typeof(acknowledged) <> 'integer' "
        "OR typeof(final) NOT IN ('integer', 'null') "
        f"OR max(acknowledged, coalesce(final, 0)) > {MAX_SEQUENCE} "
        "OR min(acknowledged, coalesce(final, 0)) < 0"
    ),
    "loss": (
        f"{_STREAM} OR {_EPOCH} OR typeof(first) <> 'integer' OR typeof(last) <> 'integer' "
        f"OR first < 1 OR first > last OR last > {MAX_SEQUENCE} OR typeof(cause) <> 'text' "
        "OR typeof(first_time) NOT IN ('integer', 'null') "
        "OR typeof(last_time) NOT IN ('integer', 'null') "
        "OR typeof(reported) NOT IN ('integer', 'null')"
    ),
}
"""Which rows of a table nobody has written: SQLite keeps no checksum over what a disk returns."""


@dataclass(slots=True)
class Positions:
    """Sequences by epoch and stream. `final` has the closed epochs only, `epoch` is the open one.

    next: the number that the next event of the open epoch gets. sent: the edge up to which the
    sender has taken segments since the start; what is behind it was never sent.

    Acknowledgements are believed at once and written down a little later (`save`): one that a crash
    forgets comes again with what is sent again.
    """

    epoch: int
    next: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(Stream, 1))
    acknowledged: dict[int, dict[Stream, int]] = field(default_factory=dict)
    final: dict[int, dict[Stream, int]] = field(default_factory=dict)
    sent: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(Stream, 0))
    saved: dict[tuple[int, Stream], int] = field(default_factory=dict)
    """The acknowledged sequences as they are on the disk."""
    newest_time: int = 0
    """Wall time (ns) of the newest event that a synchronised clock has stamped."""

    def knows(self, epoch: int) -> bool:
        """Whether this box ever numbered events in *epoch*."""
        return epoch == self.epoch or epoch in self.final

    def reached(self, stream: Stream, epoch: int) -> int:
        """The last sequence that is acknowledged in *epoch*."""
        return self.acknowledged.get(epoch, {}).get(stream, 0)

    def limit(self, stream: Stream, epoch: int) -> int:
        """The last sequence that was ever sealed in *epoch*; 0 for one that this box never had."""
        if epoch == self.epoch:
            return self.next[stream] - 1
        return self.final.get(epoch, {}).get(stream, 0)

    def newest(self, stream: Stream) -> int:
        """The edge of the newest sealed event."""
        return row_id(self.epoch, self.next[stream] - 1)

    def released(self, stream: Stream) -> int:
        """The edge up to which nothing waits, in this epoch and in all before it."""
        epoch = next(
            (e for e in sorted(self.final) if self.reached(stream, e) < self.final[e][stream]),
            self.epoch,
        )
        return row_id(epoch, self.reached(stream, epoch))

    def waiting(self, stream: Stream) -> list[tuple[int, int]]:
        """Ranges of row ids, both ends included, in which segments wait, oldest first."""
        return [
            (row_id(epoch, self.reached(stream, epoch) + 1), row_id(epoch, MAX_SEQUENCE))
            for epoch in sorted({*self.final, self.epoch})
            if self.reached(stream, epoch) < self.limit(stream, epoch)
        ]

    def unsaved(self) -> dict[tuple[int, Stream], int]:
        """Acknowledged sequences that the disk does not know yet. From any thread."""
        return {
            (epoch, stream): seq
            for epoch, streams in list(self.acknowledged.items())
            for stream, seq in list(streams.items())
            if self.saved.get((epoch, stream), 0) < seq
        }

    def told(self) -> dict[int, dict[Stream, int]]:
        """The last sequences of the closed epochs that a birth tells of."""
        used = [epoch for epoch in sorted(self.final) if any(self.final[epoch].values())]
        return {epoch: dict(self.final[epoch]) for epoch in used[-CLOSED_TOLD:]}

    def told_released(self) -> dict[int, dict[Stream, int]]:
        """What is acknowledged in those of them where something waits."""
        behind = {
            epoch: {
                stream: self.reached(stream, epoch)
                for stream, final in finals.items()
                if self.reached(stream, epoch) < final
            }
            for epoch, finals in self.told().items()
        }
        return {epoch: streams for epoch, streams in behind.items() if streams}


def load(connection: sqlite3.Connection, opened: int) -> Positions:
    """Read where everything stands. A new database begins with epoch 1. opened: wall time, ns.

    Raises DamagedError where the tables cannot be right: what they say of an epoch decides whether
    its events are ever sent.
    """
    for table, broken in BROKEN.items():
        if connection.execute(f"SELECT 1 FROM {table} WHERE {broken}").fetchone():  # noqa: S608
            raise DamagedError(f"the table {table} holds what was never written to it")
    numbers = [row[0] for row in connection.execute("SELECT number FROM epoch ORDER BY number")]
    if not numbers:
        open_epoch(connection, 1, opened, "first start")
        numbers = [1]
    _check(connection, numbers)
    found = Positions(epoch=numbers[-1])
    for epoch, name, acknowledged, final in connection.execute(
        "SELECT epoch, stream, acknowledged, final FROM position"
    ):
        found.acknowledged.setdefault(epoch, {})[Stream(name)] = acknowledged
        found.saved[epoch, Stream(name)] = acknowledged
        if epoch < found.epoch:
            found.final.setdefault(epoch, dict.fromkeys(Stream, 0))[Stream(name)] = final or 0
    for stream in Stream:
        row = connection.execute(
            LAST[stream], (row_id(found.epoch, 1), row_id(found.epoch, MAX_SEQUENCE))
        ).fetchone()
        dropped = connection.execute(
            "SELECT max(last) FROM loss WHERE stream=? AND epoch=?", (stream, found.epoch)
        ).fetchone()
        found.next[stream] = 1 + max(
            found.reached(stream, found.epoch), row[1] if row else 0, dropped[0] or 0
        )
        if row and row[3]:
            found.newest_time = max(found.newest_time, row[2])
    return found


def _check(connection: sqlite3.Connection, numbers: list[int]) -> None:
    """Epochs, positions and segments must agree on which epochs are closed, and where."""
    ends = {
        (epoch, name): final
        for epoch, name, final in connection.execute("SELECT epoch, stream, final FROM position")
    }
    closed = {(epoch, str(stream)) for epoch in numbers[:-1] for stream in Stream}
    if {place for place, final in ends.items() if final is not None} != closed:
        raise DamagedError("the tables epoch and position do not agree on what is closed")
    for stream in Stream:
        row = connection.execute(LAST[stream], (0, row_id(MAX_EPOCH, MAX_SEQUENCE))).fetchone()
        if row and epoch_of(row[0]) > numbers[-1]:
            raise DamagedError(f"{stream}: epoch {epoch_of(row[0])} was never opened")
        for epoch in numbers[:-1]:
            span = row_id(epoch, 1), row_id(epoch, MAX_SEQUENCE)
            row = connection.execute(LAST[stream], span).fetchone()
            if row and row[1] > ends[epoch, str(stream)]:
                raise DamagedError(f"{stream} {epoch}/{row[1]} is behind the end of its epoch")


def save(connection: sqlite3.Connection, at: Positions) -> dict[tuple[int, Stream], int]:
    """Write down what is acknowledged by now; return what was written, for `Positions.saved`.

    It belongs into every transaction that deletes delivered segments: numbers must not be given
    again because nothing is left that shows them.
    """
    written = at.unsaved()
    connection.executemany(
        "INSERT INTO position (epoch, stream, acknowledged) VALUES (?,?,?) "
        "ON CONFLICT (epoch, stream) DO UPDATE "
        "SET acknowledged=max(acknowledged, excluded.acknowledged)",
        [(epoch, stream, seq) for (epoch, stream), seq in written.items()],
    )
    return written


def open_epoch(connection: sqlite3.Connection, number: int, opened: int, reason: str) -> None:
    """Begin epoch *number*, which must be above all others."""
    connection.execute("INSERT INTO epoch VALUES (?,?,?)", (number, opened, reason))


def close_epoch(connection: sqlite3.Connection, number: int, final: dict[Stream, int]) -> None:
    """End epoch *number*; *final* has the last sequence of each stream."""
    connection.executemany(
        "INSERT INTO position (epoch, stream, acknowledged, final) VALUES (?,?,0,?) "
        "ON CONFLICT (epoch, stream) DO UPDATE SET final=excluded.final",
        [(number, stream, last) for stream, last in final.items()],
    )
