"""Erasing what the box keeps of one car: at once what is delivered, the rest once it is.

What waits is promised to the console, which erases on its own side: it goes as soon as it is
acknowledged. Delivered segments that name the car leave the local history whole, with the other
events in them: a segment with other content under its numbers would look like another disk's.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from nexus_agent.protocol import SegmentError, Stream, unpack_lines
from nexus_agent.store import segments, state
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import SOURCE, Outbox
from nexus_agent.store.segments import MAX_ID, row_id

PAGE: Final = 64
"""Segments that are looked through together."""
_KEY: Final = "erase"
_ERASED: Final = json.dumps({"erased": True})


@dataclass(slots=True)
class Erased:
    """What was found of a car, as far as it has come.

    states: keys of plugins' states; results: of commands; events: delivered ones that named it;
    forgotten: delivered ones that left the history, those included; waiting: events that name it
    and go once they are delivered. searched: segments looked through. unsearched: files that were
    set aside as damaged, and may name it. log_emptied: whether the write-ahead log, which has the
    pages as they were, could be emptied; a reader may hold it.
    """

    states: int = 0
    results: int = 0
    events: int = 0
    forgotten: int = 0
    waiting: int = 0
    searched: int = 0
    unsearched: list[str] = field(default_factory=list)
    log_emptied: bool = False


Span = tuple[int, int]
"""Row ids of the first and the last event of a segment, as it was."""


class Erasure:
    """Erases from *database*; call `finish` now and then."""

    def __init__(self, outbox: Outbox, database: Database) -> None:
        self._outbox = outbox
        self._database = database

    async def erase(self, marks: Sequence[str]) -> AsyncGenerator[Erased, None]:
        """Erase what holds one of *marks*, texts that only this car's data has.

        Says again and again how far it has come, at last with everything. Raises StoreError.
        """
        found = Erased(unsearched=await asyncio.to_thread(self._set_aside))
        before = await self._database.tend(_overwrite)
        try:
            found.states, found.results = await self._outbox.write(partial(_forget_rows, marks))
            yield found
            for stream in Stream:
                async for _ in self._search(stream, marks, found):
                    yield found
        finally:
            found.log_emptied = await self._database.tend(partial(_overwrite_no_more, before))
        yield found

    def _set_aside(self) -> list[str]:
        folder, name = self._database.path.parent, self._database.path.name
        files = [*folder.glob(f"{name}.damaged-*"), *folder.glob("damaged/*.segment")]
        return sorted(str(file) for file in files)

    async def _search(
        self, stream: Stream, marks: Sequence[str], found: Erased
    ) -> AsyncIterator[None]:
        edge = 0
        sql, end = segments.NEXT[stream], (1, MAX_ID)
        while rows := await segments.fetch(self._database, stream, sql, (edge, PAGE), end):
            edge = rows[-1][0]
            named = await asyncio.to_thread(_naming, rows, marks)
            waits = self._outbox.positions.waiting(stream)
            delivered, later = [], []
            for row, count in named:
                if _is_within(_span(row), waits):
                    later.append(_span(row))
                    found.waiting += count
                else:
                    delivered.append(row[0])
                    found.events += count
                    found.forgotten += row[2]
            if named:
                await self._outbox.write(partial(_forget, stream, delivered, later))
            found.searched += len(rows)
            yield

    async def finish(self) -> None:
        """Let go what waited when it was to be erased and has been delivered since."""
        text = await self._database.read(
            "SELECT value FROM plugin_state WHERE plugin=? AND key=?", (SOURCE, _KEY)
        )
        if not text:
            return
        before = await self._database.tend(_overwrite)
        try:
            waiting = {stream: self._outbox.positions.waiting(stream) for stream in Stream}
            await self._outbox.write(partial(_finish, waiting))
        finally:
            await self._database.tend(partial(_overwrite_no_more, before))


def _overwrite(connection: sqlite3.Connection) -> int:
    """Have deleted content overwritten with zeros (SQLite, PRAGMA secure_delete); what it was."""
    (before,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute("PRAGMA secure_delete=1").fetchall()
    return int(before)


def _overwrite_no_more(before: int, connection: sqlite3.Connection) -> bool:
    """Empty the write-ahead log; False where somebody reads what is in it."""
    connection.execute(f"PRAGMA secure_delete={before}").fetchall()
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _forget_rows(marks: Sequence[str], connection: sqlite3.Connection) -> tuple[int, int]:
    states = results = 0
    for mark in marks:
        states += connection.execute(
            "DELETE FROM plugin_state WHERE plugin<>? AND (instr(key, ?) OR instr(value, ?))",
            (SOURCE, mark, mark),
        ).rowcount
        # A repeat of the command still finds that it was done, and no longer what it found.
        results += connection.execute(
            "UPDATE command SET result=json_set(result, '$.result', json(?)) "
            "WHERE instr(result, ?)",
            (_ERASED, mark),
        ).rowcount
    return states, results


def _naming(rows: Sequence[Any], marks: Sequence[str]) -> list[tuple[Any, int]]:
    """The rows whose events hold a mark, and how many do."""
    found = []
    for row in rows:
        try:
            lines = unpack_lines(row[-1])
        except SegmentError:
            continue  # whoever reads it sets it aside
        if count := sum(any(mark in line for mark in marks) for line in lines):
            found.append((row, count))
    return found


def _span(row: Sequence[Any]) -> Span:
    return row[0], row_id(segments.epoch_of(row[0]), row[1])


def _is_within(span: Span, waiting: Sequence[Span]) -> bool:
    return any(first <= span[1] and span[0] <= last for first, last in waiting)


def _forget(
    stream: Stream,
    delivered: Sequence[int],
    later: Sequence[Span],
    connection: sqlite3.Connection,
) -> None:
    for row in delivered:
        connection.execute(segments.DELETE[stream], (row, row))
    if later:
        noted = _noted(connection)
        noted[stream] = sorted({*noted.get(stream, []), *later})
        _note(connection, noted)


def _finish(waiting: dict[Stream, list[Span]], connection: sqlite3.Connection) -> None:
    left: dict[str, list[Span]] = {}
    for name, spans in _noted(connection).items():
        stream = Stream(name)
        for first, last in spans:
            # It may be a part of a longer segment by now: small ones are merged before they go.
            (start,) = connection.execute(segments.CONTAINING[stream], (first,)).fetchone()
            rows = connection.execute(segments.SIZES[stream], (start or first, last, -1)).fetchall()
            there = [span for span in map(_span, rows) if span[1] >= first]
            if any(_is_within(span, waiting[stream]) for span in there):
                left.setdefault(name, []).append((first, last))
                continue
            for span in there:
                connection.execute(segments.DELETE[stream], (span[0], span[0]))
    _note(connection, left)


def _noted(connection: sqlite3.Connection) -> dict[str, list[Span]]:
    row = connection.execute(
        "SELECT value FROM plugin_state WHERE plugin=? AND key=?", (SOURCE, _KEY)
    ).fetchone()
    noted = json.loads(row[0]) if row else {}
    return {stream: [(first, last) for first, last in spans] for stream, spans in noted.items()}


def _note(connection: sqlite3.Connection, spans: dict[str, list[Span]]) -> None:
    state.put(SOURCE, _KEY, json.dumps(spans) if spans else None, connection)
