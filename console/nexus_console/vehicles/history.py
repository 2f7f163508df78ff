"""Keeps the tables of vehicles up with the events; each event counted exactly once.

A box's mark in `vehicle_marks` moves in the same transaction as what its events say. A car's row
and codes are made anew from all of its facts whenever there is a new one: a scan that comes late,
because a box was offline, gives the same history as one that came in time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Row, and_, delete, func, insert, select, tuple_, update

from nexus_agent.protocol import Stream
from nexus_console.blocks import with_lines
from nexus_console.db.engine import Database, upsert
from nexus_console.db.models import (
    CLOCKS,
    STREAM_CODES,
    devices,
    events,
    vehicle_codes,
    vehicle_facts,
    vehicle_marks,
    vehicles,
)
from nexus_console.vehicles.facts import (
    CLEARED,
    HISTORY,
    IDENTIFIED,
    LATEST,
    SCAN,
    TYPES,
    Fact,
    UnreadableError,
    fact_of,
    in_order,
    told_by,
)
from nexus_console.vehicles.life import Life, State, lives

MAX_EVENTS: Final = 200
"""Events that one transaction takes: each may hold some 10 KB, and ingest waits meanwhile."""

_STREAM: Final = STREAM_CODES[Stream.EVENT]
_UNKNOWN: Final = CLOCKS.index("unknown")


class Step(NamedTuple):
    """One transaction. boxes: names of those whose cars' histories have changed."""

    events: int
    boxes: frozenset[str]


class Histories:
    """Brings the tables up to the events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def turn(self) -> Iterator[Step]:
        """Catch up with every box, and with clocks that were set right, in short transactions.

        Who stops in between loses nothing: the next turn goes on from there.
        """
        if step := self._retime():
            yield step
        for device_id, name in self._behind():
            while step := self._take(device_id, name):
                yield step

    def _behind(self) -> list[tuple[int, str]]:
        """(device id, name) of the boxes that have events behind their marks."""
        newest = (
            select(func.max(events.c.position))
            .where(events.c.device_id == devices.c.id, events.c.stream == _STREAM)
            .scalar_subquery()
        )
        found = (
            select(devices.c.id, devices.c.name)
            .join_from(devices, vehicle_marks, isouter=True)
            .where(newest > func.coalesce(vehicle_marks.c.position, 0))
        )
        with self._database.read() as connection:
            return [(row.id, row.name) for row in connection.execute(found)]

    def _take(self, device_id: int, name: str) -> Step | None:
        """The next events of a box; None where there are none."""
        with self._database.write() as connection:
            mark = _lock_mark(connection, device_id)
            rows = connection.execute(
                select(events)
                .where(
                    events.c.device_id == device_id,
                    events.c.stream == _STREAM,
                    events.c.position > mark,
                )
                .order_by(events.c.position)
                .limit(MAX_EVENTS)
            ).all()
            if not rows:
                return None
            facts, unreadable = _read(connection, [row for row in rows if row.type in TYPES])
            facts = _once(connection, facts)
            if facts:
                connection.execute(insert(vehicle_facts), [fact._asdict() for fact in facts])
            _recompute(connection, {fact.ref for fact in facts})
            connection.execute(
                update(vehicle_marks)
                .filter_by(device_id=device_id)
                .values(
                    position=rows[-1].position,
                    unreadable=vehicle_marks.c.unreadable + unreadable,
                )
            )
        return Step(len(rows), frozenset([name] if facts else []))

    def _retime(self) -> Step | None:
        """Take over times of events whose clock has become known."""
        same = and_(
            events.c.device_id == vehicle_facts.c.device_id,
            events.c.stream == _STREAM,
            events.c.position == vehicle_facts.c.position,
            events.c.clock != _UNKNOWN,
        )
        found = (
            select(vehicle_facts.c.ref, events.c.device_id, events.c.position)
            .add_columns(events.c.time, events.c.clock, devices.c.name)
            .join_from(vehicle_facts, events, same)
            .join(devices, devices.c.id == events.c.device_id)
            .where(vehicle_facts.c.clock == _UNKNOWN)
            .limit(MAX_EVENTS)
        )
        with self._database.read() as connection:
            rows = connection.execute(found).all()
        if not rows:
            return None
        with self._database.write() as connection:
            for row in rows:
                connection.execute(
                    update(vehicle_facts)
                    .filter_by(ref=row.ref, device_id=row.device_id, position=row.position)
                    .values(time=row.time, clock=row.clock)
                )
            _recompute(connection, {row.ref for row in rows})
        return Step(len(rows), frozenset(row.name for row in rows))


def _lock_mark(connection: Connection, device_id: int) -> int:
    """The box's mark, held until the end of the transaction."""
    connection.execute(
        upsert(connection, vehicle_marks)
        .values(device_id=device_id, position=0, unreadable=0)
        .on_conflict_do_nothing()
    )
    of_box = select(vehicle_marks.c.position).filter_by(device_id=device_id).with_for_update()
    return int(connection.execute(of_box).scalar_one())


def _read(connection: Connection, rows: list[Row[Any]]) -> tuple[list[Fact], int]:
    """What *rows* say, and how many of them cannot be read."""
    facts, unreadable = [], 0
    for event in with_lines(connection, rows):
        try:
            fact = fact_of(event)
        except UnreadableError:
            unreadable += 1
            continue
        if fact is not None:
            facts.append(fact)
    return facts, unreadable


def _once(connection: Connection, facts: list[Fact]) -> list[Fact]:
    """*facts*, of one box, without scans that it has sent before its disk was restored."""
    scans = {(fact.ref, fact.scan_id) for fact in facts if fact.type == SCAN}
    columns = vehicle_facts.c
    known: set[tuple[str, str | None]] = set()
    if scans:
        rows = connection.execute(
            select(columns.ref, columns.scan_id).where(
                columns.type == SCAN,
                columns.device_id == facts[0].device_id,
                tuple_(columns.ref, columns.scan_id).in_(sorted(scans)),
            )
        )
        known = {(row.ref, row.scan_id) for row in rows}
    found = []
    for fact in facts:
        if fact.type == SCAN:
            if (fact.ref, fact.scan_id) in known:
                continue
            known.add((fact.ref, fact.scan_id))
        found.append(fact)
    return found


def _recompute(connection: Connection, refs: Collection[str]) -> None:
    """Make the rows of these cars anew."""
    for ref in sorted(refs):  # in one order, so that two consoles never wait crosswise
        _lock_vehicle(connection, ref)
        _keep_latest(connection, ref)
        _write_vehicle(connection, ref, _write_codes(connection, ref))


def _lock_vehicle(connection: Connection, ref: str) -> None:
    """Two boxes may tell of one car at the same time."""
    connection.execute(
        upsert(connection, vehicles)
        .values(ref=ref, first_seen=0, last_seen=0, present=0, unknown=0)
        .on_conflict_do_nothing()
    )
    connection.execute(select(vehicles.c.ref).filter_by(ref=ref).with_for_update())


def _keep_latest(connection: Connection, ref: str) -> None:
    """Of the types in LATEST, keep the newest event, and those whose time is not known yet."""
    columns = vehicle_facts.c
    newest: dict[str, Any] = {}
    old: list[tuple[int, int]] = []
    rows = connection.execute(
        select(columns.type, columns.device_id, columns.position)
        .filter_by(ref=ref)
        .where(columns.type.in_(LATEST), columns.clock != _UNKNOWN)
        .order_by(columns.time, columns.device_id, columns.position)
    )
    for row in rows.all():
        if before := newest.get(row.type):
            old.append((before.device_id, before.position))
        newest[row.type] = row
    if old:
        connection.execute(
            delete(vehicle_facts)
            .filter_by(ref=ref)
            .where(tuple_(columns.device_id, columns.position).in_(old))
        )


def _write_codes(connection: Connection, ref: str) -> dict[str, int | None]:
    """The codes of a car; what its own row has to say of them."""
    rows = connection.execute(
        select(vehicle_facts).filter_by(ref=ref).where(vehicle_facts.c.type.in_((SCAN, CLEARED)))
    ).all()
    found = lives(in_order(map(told_by, rows)))
    connection.execute(delete(vehicle_codes).filter_by(ref=ref))
    if found:
        connection.execute(
            insert(vehicle_codes),
            [
                {
                    "ref": ref,
                    "ecu": ecu,
                    "code": code,
                    "state": life.now.state.value,
                    "life": orjson.dumps(_document(life)).decode(),
                }
                for (ecu, code), life in sorted(found.items())
            ],
        )
    states = [life.now.state for life in found.values()]
    return {
        "last_scan": max((row.time for row in rows if row.type == SCAN), default=None),
        "present": sum(state.present for state in states),
        "unknown": states.count(State.UNKNOWN),
    }


def _document(life: Life) -> dict[str, Any]:
    """As `vehicle_codes.life` keeps it; times in ns."""
    return {
        "seen": life.seen,
        "checked": life.checked,
        "changes": [
            {
                "state": change.state,
                "kinds": change.kinds,
                "unsaid": change.unsaid,
                "time": change.origin.time,
                "device_id": change.origin.device_id,
                "position": change.origin.position,
                "scan_id": change.origin.scan_id,
            }
            for change in life.changes
        ],
    }


def _write_vehicle(connection: Connection, ref: str, values: dict[str, int | None]) -> None:
    columns = vehicle_facts.c
    span = select(func.min(columns.time), func.max(columns.time)).filter_by(ref=ref)
    first, last = connection.execute(span.where(columns.type.in_(HISTORY))).one()
    if first is None:
        first, last = connection.execute(span).one()
    if first is None:  # it was erased meanwhile
        connection.execute(delete(vehicles).filter_by(ref=ref))
        return
    of_ref = select(columns.vin, columns.data).filter_by(ref=ref)
    newest = (columns.time.desc(), columns.device_id.desc(), columns.position.desc())
    named = connection.execute(
        of_ref.where(columns.vin.is_not(None)).order_by(*newest).limit(1)
    ).one_or_none()
    told = connection.execute(
        of_ref.where(columns.type == IDENTIFIED).order_by(*newest).limit(1)
    ).one_or_none()
    identity = orjson.loads(told.data) if told else {}
    connection.execute(
        update(vehicles)
        .filter_by(ref=ref)
        .values(
            vin=named.vin if named else None,
            maker=identity.get("maker"),
            model_year=identity.get("model_year"),
            first_seen=first,
            last_seen=last,
            **values,
        )
    )
