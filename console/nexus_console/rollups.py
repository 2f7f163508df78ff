"""Readings of a minute and of an hour, summed up as events arrive, each counted exactly once.

A box's mark in `rollup_marks` moves in the same transaction as the sums behind it: whatever is
killed when, what is below the mark is in the sums and what is above it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, bindparam, case, func, select

from nexus_agent.protocol import Quality
from nexus_console.blocks import with_lines
from nexus_console.curves import Reading, readings
from nexus_console.db.engine import Database, storable, upsert
from nexus_console.db.models import (
    CLOCKS,
    STREAMS,
    devices,
    events,
    rollup_marks,
    series,
    series_hour,
    series_minute,
)

MINUTE: Final = 60 * 1_000_000_000
HOUR: Final = 60 * MINUTE
MAX_EVENTS: Final = 5_000
"""Events that one transaction takes at most."""
MAX_BOXES: Final = 500
MAX_PERIODS: Final = 300
"""Minutes of series after which a transaction takes no further event: each costs two rows, and
the database is locked for ingest meanwhile."""
CLOCK_PATIENCE: Final = 10 * MINUTE
"""How long a box's events wait for the clock of one among them to become known."""
MAX_TEXT: Final = 255
"""Characters of a name, control unit or unit; PostgreSQL's index takes 2,700 bytes for all three.
A longer one is no name: the event keeps it, no sum does."""
MAX_NUMBER: Final = 1e290
"""What is larger is counted only: a sum must not leave the range of a double."""

_UNKNOWN: Final = CLOCKS.index("unknown")
_MANY_IDS: Final = 200_000


class Curve(NamedTuple):
    """What makes a series one: a row of `series` without its id."""

    device_id: int
    type: str
    name: str
    ecu: str
    unit: str


class Period:
    """The readings of one curve within one minute or hour."""

    __slots__ = ("absent", "malformed", "maximum", "minimum", "ok", "refused", "total")

    def __init__(self) -> None:
        self.ok = self.absent = self.refused = self.malformed = 0
        self.minimum: float | None = None
        self.maximum: float | None = None
        # None as soon as one that is ok is no number: then nobody can tell a mean.
        self.total: float | None = 0.0

    def add(self, reading: Reading) -> None:
        quality = reading.quality
        if quality is Quality.OK:
            self.ok += 1
            self._add_value(_number(reading.value))
        elif quality is Quality.ABSENT:
            self.absent += 1
        elif quality is Quality.REFUSED:
            self.refused += 1
        else:
            self.malformed += 1

    def _add_value(self, number: float | None) -> None:
        if number is None or self.total is None:
            self.total = None
        else:
            self.total += number
        if number is not None:
            self._widen(number, number)

    def _widen(self, minimum: float, maximum: float) -> None:
        if self.minimum is None or minimum < self.minimum:
            self.minimum = minimum
        if self.maximum is None or maximum > self.maximum:
            self.maximum = maximum

    def merge(self, other: Period) -> None:
        self.ok += other.ok
        self.absent += other.absent
        self.refused += other.refused
        self.malformed += other.malformed
        if self.total is not None and other.total is not None:
            self.total += other.total
        else:
            self.total = None
        if other.minimum is not None and other.maximum is not None:
            self._widen(other.minimum, other.maximum)

    def row(self, series_id: int, start: int) -> dict[str, Any]:
        return {
            "series_id": series_id,
            "start": start,
            "ok": self.ok,
            "absent": self.absent,
            "refused": self.refused,
            "malformed": self.malformed,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "total": self.total if self.ok else None,
        }


Periods = dict[tuple[Curve, int], Period]
_Said = tuple[int, str, str, str | None, str | None]


class Rollups:
    """Brings `series_minute` and `series_hour` up to the events."""

    def __init__(self, database: Database, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._database, self._clock = database, clock
        self._ids: dict[Curve, int] = {}

    def turn(self) -> Iterator[int]:
        """Catch up with every box; after each transaction the number of events that it took.

        Who stops in between loses nothing: the next turn goes on from there.
        """
        while behind := self._behind():
            moved = 0
            while behind:
                batch = self._gather(behind)
                if batch.marks and self._write(batch):
                    moved += batch.events
                    yield batch.events
            if not moved:
                return

    def _behind(self) -> list[tuple[int, int, int]]:
        """(device, its mark, its newest position) of every box that has events above its mark."""
        mark = func.coalesce(rollup_marks.c.position, 0)
        found = (
            select(devices.c.id, mark, devices.c.events)
            .join_from(devices, rollup_marks, isouter=True)
            .where(devices.c.events > mark)
        )
        with self._database.read() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(found)]

    def _gather(self, behind: list[tuple[int, int, int]]) -> _Batch:
        """One transaction's worth: of many boxes a little, or of one box a part."""
        batch = _Batch(patient_since=self._clock() - CLOCK_PATIENCE)
        with self._database.read() as connection:
            while behind and not batch.full:
                batch.take(connection, *behind.pop())
        return batch

    def _write(self, batch: _Batch) -> bool:
        """Whether *batch* is in; not if another console has been faster with one of its boxes."""
        hours = batch.hours()
        try:
            with self._database.write() as connection:
                batch.move_marks(connection)
                ids = self._look_up(connection, {curve for curve, _ in hours})
                _add(connection, series_minute, batch.minutes, ids)
                _add(connection, series_hour, hours, ids)
        except _OvertakenError:
            return False
        if len(self._ids) > _MANY_IDS:
            self._ids.clear()
        self._ids.update(ids)
        return True

    def _look_up(self, connection: Connection, curves: set[Curve]) -> dict[Curve, int]:
        """The ids of *curves*, made where there are none. The cache learns them once committed."""
        missing = curves - self._ids.keys()
        known = {curve: self._ids[curve] for curve in curves - missing}
        if missing:
            known |= _stored(connection, missing)
            # Not all of them at once: a refused insert uses up an id on PostgreSQL.
            if new := missing - known.keys():
                statement = upsert(connection, series).on_conflict_do_nothing()
                connection.execute(statement, [curve._asdict() for curve in sorted(new)])
                known |= _stored(connection, new)
        return known


class _OvertakenError(Exception):
    """A mark is not where it was when the events behind it were read."""


class _Batch:
    """Events of one transaction, summed up."""

    def __init__(self, *, patient_since: int) -> None:
        self._patient_since = patient_since
        self.marks: dict[int, tuple[int, int]] = {}
        self.minutes: Periods = {}
        self._curves: dict[_Said, Curve | None] = {}
        self.events = 0

    @property
    def full(self) -> bool:
        return (
            self.events >= MAX_EVENTS
            or len(self.minutes) >= MAX_PERIODS
            or len(self.marks) >= MAX_BOXES
        )

    def take(self, connection: Connection, device_id: int, mark: int, newest: int) -> None:
        """Add events of a box from behind *mark* on, in the order of their positions."""
        upto = min(newest, mark + MAX_EVENTS - self.events)
        found = select(events).where(
            events.c.device_id == device_id,
            events.c.stream.in_(STREAMS),
            events.c.position.between(mark + 1, upto),
        )
        rows = sorted(connection.execute(found), key=lambda row: int(row.position))
        for row in with_lines(connection, rows):
            waits = row.clock == _UNKNOWN and row.received > self._patient_since
            if waits or self.full:
                upto = row.position - 1
                break
            self._add(device_id, row.type, row.time, row.line)
        if upto > mark:
            self.marks[device_id] = (mark, upto)
            self.events += upto - mark

    def _add(self, device_id: int, kind: str, time: int, line: str) -> None:
        start = time // MINUTE * MINUTE
        for reading in readings(line):
            said = (device_id, kind, reading.name, reading.ecu, reading.unit)
            if said not in self._curves:
                self._curves[said] = _curve(*said)
            curve = self._curves[said]
            if curve is None:
                continue
            period = self.minutes.get((curve, start))
            if period is None:
                period = self.minutes[curve, start] = Period()
            period.add(reading)

    def hours(self) -> Periods:
        """The same readings by the hour."""
        found: Periods = {}
        for (curve, start), period in self.minutes.items():
            found.setdefault((curve, start // HOUR * HOUR), Period()).merge(period)
        return found

    def move_marks(self, connection: Connection) -> None:
        """Move every mark, unless one has been moved since. Raises _OvertakenError."""
        insert = upsert(connection, rollup_marks)
        statement = insert.on_conflict_do_update(
            index_elements=["device_id"],
            set_={"position": insert.excluded.position},
            where=rollup_marks.c.position == bindparam("mark"),
        )
        rows = [
            {"device_id": device_id, "position": upto, "mark": mark}
            for device_id, (mark, upto) in sorted(self.marks.items())
        ]
        moved = connection.execute(statement, rows, execution_options={"preserve_rowcount": True})
        if moved.rowcount != len(rows):
            raise _OvertakenError


def _stored(connection: Connection, curves: set[Curve]) -> dict[Curve, int]:
    boxes = {curve.device_id for curve in curves}
    rows = connection.execute(select(series).where(series.c.device_id.in_(boxes)))
    return {
        curve: row.id
        for row in rows
        if (curve := Curve(row.device_id, row.type, row.name, row.ecu, row.unit)) in curves
    }


def _add(connection: Connection, table: Table, periods: Periods, ids: dict[Curve, int]) -> None:
    """Add *periods* to what *table* holds of them."""
    if not periods:
        return
    insert = upsert(connection, table)
    old, new = table.c, insert.excluded
    sums = {quality.value: old[quality] + new[quality] for quality in Quality}
    total = case((old.ok == 0, new.total), (new.ok == 0, old.total), else_=old.total + new.total)
    lower = case((old.minimum.is_(None), new.minimum), (new.minimum < old.minimum, new.minimum))
    upper = case((old.maximum.is_(None), new.maximum), (new.maximum > old.maximum, new.maximum))
    statement = insert.on_conflict_do_update(
        index_elements=["series_id", "start"],
        set_=sums
        | {
            "total": total,
            "minimum": func.coalesce(lower, old.minimum),
            "maximum": func.coalesce(upper, old.maximum),
        },
    )
    # By key: rows that lie together are found together, and two consoles never wait crosswise.
    rows = [period.row(ids[curve], start) for (curve, start), period in periods.items()]
    rows.sort(key=lambda row: (row["series_id"], row["start"]))
    connection.execute(statement, rows)


def _curve(device_id: int, kind: str, name: str, ecu: str | None, unit: str | None) -> Curve | None:
    """The curve that a reading belongs to; None where its name is none."""
    texts = (storable(name), storable(ecu or ""), storable(unit or ""))
    return None if max(map(len, texts)) > MAX_TEXT else Curve(device_id, kind, *texts)


def _number(value: float | str | bool | None) -> float | None:
    """*value* where it is one that can be summed up."""
    if isinstance(value, bool) or not isinstance(value, float | int):
        return None
    return float(value) if abs(value) <= MAX_NUMBER else None
