"""Erasing a car: its history, and its data in what is stored of boxes.

Positions and sequences have to stay, or what boxes were told to have arrived would be missing. So
an event about the car keeps its place, time and type, and its data is replaced. Sums of readings
tell of a box and of no car; they stay.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Connection, Row, Table, and_, delete, or_, select, tuple_, update

from nexus_agent.protocol import ProtocolError, pack_lines, unpack_lines
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    blocks,
    commands,
    events,
    set_aside,
    unreadable,
    vehicle_codes,
    vehicle_facts,
    vehicle_marks,
    vehicles,
)
from nexus_console.vehicles.erased import MARK, erased, is_erased_line

AT_ONCE: Final = 50
"""Blocks that are read together."""

SHORTEST_REF: Final = 8
"""A shorter one would be found in what is not about the car."""
VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}", re.ASCII)

Progress = Callable[[str], None]


class ErasureError(Exception):
    """Nothing was erased; the message says why, and does not repeat a VIN."""


class Erased(BaseModel):
    """What was removed. events are by type; not_searched: segments kept as they came that cannot be
    decoded, and so not be looked into. log_emptied: whether the database's own log was, too.
    """

    vehicles: int
    facts: int
    codes: int
    events: dict[str, int]
    segments: int
    messages: int
    commands: int
    not_searched: int
    log_emptied: bool


def erase(
    database: Database,
    *,
    ref: str | None = None,
    vin: str | None = None,
    progress: Progress = lambda _: None,
) -> Erased:
    """Erase the car of which one of *ref* and *vin* is given; a second time it finds nothing.

    What comes while this runs, or later from a box that still has it, is not in it. Raises
    ErasureError.
    """
    if ref is not None and len(ref) < SHORTEST_REF:
        raise ErasureError(f"a reference has {SHORTEST_REF} characters or more")
    if vin is not None and not VIN.fullmatch(vin.upper()):
        raise ErasureError("a VIN has 17 letters and digits, and none of I, O and Q")
    car = _Car({ref} if ref else set(), {vin.upper()} if vin else set())
    if database.is_sqlite:
        with database.write() as connection:
            # What is deleted is overwritten; it is this connection's from now on.
            connection.exec_driver_sql("PRAGMA secure_delete = ON")
    with database.read() as connection:
        _learn(connection, car)
    found: Counter[str] = Counter()
    known = None
    # A line may tell of a reference that goes with the VIN, or the other way round.
    while known != car.size:
        known = car.size
        found += _erase_events(database, car, progress)
    with database.write() as connection:
        segments, not_searched = _erase_segments(connection, car)
        messages = _erase_messages(connection, car)
        answered = _erase_commands(connection, car)
        cars, facts, codes = _erase_history(connection, car)
    return Erased(
        vehicles=cars,
        facts=facts,
        codes=codes,
        events=dict(sorted(found.items())),
        segments=segments,
        messages=messages,
        commands=answered,
        not_searched=not_searched,
        log_emptied=database.empty_log(),
    )


class _Car:
    """By what a car is known, and telling whether a text is about it."""

    def __init__(self, refs: set[str], vins: set[str]) -> None:
        self.refs, self.vins = refs, vins

    @property
    def size(self) -> int:
        return len(self.refs) + len(self.vins)

    def add(self, ref: str | None, vin: str | None) -> None:
        """Of one event or row: where one is the car's, the other is too."""
        if ref in self.refs or vin in self.vins:
            self.refs |= {ref} if ref else set()
            self.vins |= {vin} if vin else set()

    def may_be_in(self, text: str) -> bool:
        """A quick look; what it finds needs `is_in`."""
        upper = text.upper() if self.vins else ""
        return any(ref in text for ref in self.refs) or any(vin in upper for vin in self.vins)

    def is_in(self, document: Any) -> bool:
        """Whether a text somewhere in *document* is the reference, or holds the VIN."""
        return any(
            text in self.refs or any(vin in text.upper() for vin in self.vins)
            for text in _texts(document)
        )


def _texts(document: Any) -> Iterator[str]:
    """Keys and values that are texts, however deep."""
    waiting = [document]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one


def _learn(connection: Connection, car: _Car) -> None:
    """Take over what the histories know of the car's references and VINs."""
    columns = vehicle_facts.c
    rows = connection.execute(
        select(columns.ref, columns.vin)
        .where(or_(columns.ref.in_(car.refs), columns.vin.in_(car.vins)))
        .distinct()
    )
    for row in rows:
        car.add(row.ref, row.vin)


def _erase_events(database: Database, car: _Car, progress: Progress) -> Counter[str]:
    """Replace the data of every stored event about the car; how many there were, by type."""
    found: Counter[str] = Counter()
    for count, keys in enumerate(_blocks_about(database, car)):
        progress(f"{count * AT_ONCE:,} blocks of events looked through")
        for key in keys:
            with database.write() as connection:
                found += _erase_block(connection, key, car)
    with database.write() as connection:
        found += _erase_rows(connection, car)
    return found


_BLOCK: Final = (blocks.c.device_id, blocks.c.stream, blocks.c.first)
_BlockKey = tuple[int, int, int]


def _blocks_about(database: Database, car: _Car) -> Iterator[list[_BlockKey]]:
    """Keys of the blocks that may hold something about the car, some at a time."""
    last: tuple[int, ...] = (-1, -1, -1)
    while True:
        with database.read() as connection:
            rows = connection.execute(
                select(*_BLOCK, blocks.c.payload)
                .where(tuple_(*_BLOCK) > last)
                .order_by(*_BLOCK)
                .limit(AT_ONCE)
            ).all()
        if not rows:
            return
        yield [
            (row.device_id, row.stream, row.first)
            for row in rows
            if any(map(car.may_be_in, unpack_lines(row.payload)))
        ]
        last = (rows[-1].device_id, rows[-1].stream, rows[-1].first)


def _erase_block(connection: Connection, key: _BlockKey, car: _Car) -> Counter[str]:
    where = tuple_(*_BLOCK) == key
    payload = connection.execute(
        select(blocks.c.payload).where(where).with_for_update()
    ).scalar_one_or_none()
    if payload is None:  # too old meanwhile
        return Counter()
    found: Counter[str] = Counter()
    lines = [_without(car, line, found) for line in unpack_lines(payload)]
    if found:
        connection.execute(update(blocks).where(where).values(payload=pack_lines(lines)))
    return found


def _erase_rows(connection: Connection, car: _Car) -> Counter[str]:
    """The same with lines that are in no block: what came before there were any."""
    found: Counter[str] = Counter()
    texts = [events.c.line.icontains(text, autoescape=True) for text in car.refs | car.vins]
    rows = connection.execute(select(events).where(events.c.block.is_(None), or_(*texts))).all()
    for row in rows:
        line = _without(car, row.line, found)
        if line != row.line:
            key = and_(*(column == getattr(row, column.name) for column in events.primary_key))
            connection.execute(update(events).where(key).values(line=line))
    return found


def _without(car: _Car, line: str, found: Counter[str]) -> str:
    """*line* as it is to stay. Notes in *found* if it is about the car, and learns of it."""
    if not car.may_be_in(line) or is_erased_line(line):
        return line
    event = json.loads(line)
    data = event["data"]
    if not car.is_in(data):
        return line
    if isinstance(data, dict):
        car.add(_text(data.get("vehicle_ref")), _text(data.get("vin")))
    found[event["type"]] += 1
    return erased(line)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _erase_segments(connection: Connection, car: _Car) -> tuple[int, int]:
    """Delete segments kept as they came that are about the car; and how many nobody can read."""
    gone, not_searched = [], 0
    for row in connection.execute(select(set_aside)).all():
        try:
            lines = unpack_lines(row.payload)
        except (ProtocolError, UnicodeDecodeError):
            not_searched += 1
            continue
        if any(map(car.may_be_in, lines)):
            gone.append(row.id)
    return _delete_ids(connection, set_aside, gone), not_searched


def _erase_messages(connection: Connection, car: _Car) -> int:
    """Delete messages that could not be taken in and are about the car."""
    rows = connection.execute(select(unreadable)).all()
    return _delete_ids(connection, unreadable, [row.id for row in rows if _is_about(row, car)])


def _is_about(row: Row[Any], car: _Car) -> bool:
    texts = [row.topic, row.reason, row.properties, row.payload.decode("utf-8", "replace")]
    # It need not be compressed, nor whole.
    with suppress(ProtocolError, UnicodeDecodeError):
        texts += unpack_lines(row.payload)
    return any(map(car.may_be_in, texts))


def _delete_ids(connection: Connection, table: Table, ids: list[int]) -> int:
    if ids:
        connection.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids)


def _erase_commands(connection: Connection, car: _Car) -> int:
    """Remove what commands have answered about the car."""
    columns = (commands.c.progress, commands.c.result, commands.c.error)
    texts = [
        column.icontains(text, autoescape=True)
        for text in car.refs | car.vins
        for column in columns
    ]
    changed = connection.execute(
        update(commands)
        .where(or_(*texts))
        .values(progress=None, error=None, result=json.dumps(MARK))
    )
    return changed.rowcount


def _erase_history(connection: Connection, car: _Car) -> tuple[int, int, int]:
    """Delete the car's rows; how many cars, facts and codes there were."""
    # Whoever is about to write a history has read events that are not erased: it ends first.
    connection.execute(select(vehicle_marks).with_for_update()).all()
    _learn(connection, car)
    refs = sorted(car.refs)
    gone = [
        connection.execute(delete(table).where(table.c.ref.in_(refs))).rowcount
        for table in (vehicles, vehicle_facts, vehicle_codes)
    ]
    return gone[0], gone[1], gone[2]
