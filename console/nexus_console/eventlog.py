"""Appending events to the table of all events, and telling where those of one type are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, bindparam, insert, select, update

from nexus_agent.protocol import Lines
from nexus_console.bulk import Run, insert_runs
from nexus_console.clocks import Clocks
from nexus_console.db.models import type_spans

SPAN_POSITIONS: Final = 1000
"""Positions that a type span grows to, so that lone events do not cost a row each, and whoever
looks for a rare type does not read much of what is between."""

_MAX_EVENTS: Final = 5_000
"""Events that are kept in memory."""

_Key: TypeAlias = tuple[int, str, int]


@dataclass(slots=True)
class Device:
    """A box within a transaction. events: the position of its newest event.

    session: that of its last birth. heard: when it last gave a sign of life, ns; None if
    not in this transaction. ordered: a new epoch has been ordered from it already.
    """

    id: int
    name: str
    events: int
    session: str | None = None
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
        self._runs: list[Run] = []
        self._waiting = 0
        self._newest: dict[_Key, _Span | None] = {}
        self._changed: dict[tuple[_Key, int], _Span] = {}
        self.count = 0

    def append(self, device: Device, stream: int, epoch: int, part: Lines, received: int) -> int:
        """Give *part* the next positions of *device*; return the first. stream is its code."""
        start = device.events + 1
        times, clocks = self._clocks.judge(device.id, stream, start, part, received)
        size = len(part.lines)
        self._runs.append(
            Run(
                device_id=device.id,
                stream=stream,
                position=start,
                epoch=epoch,
                seq=part.first,
                received=received,
                types=part.types,
                times=times,
                clocks=clocks,
                payload=part.packed(),
            )
        )
        for kind, span in _spans(start, part.types, times).items():
            self._note((device.id, kind, stream), span)
        device.events += size
        self.count += size
        self._waiting += size
        if self._waiting >= _MAX_EVENTS:
            self._write_runs()
        return start

    def flush(self) -> None:
        """Write what has been appended."""
        self._write_runs()
        self._save_spans()

    def _write_runs(self) -> None:
        insert_runs(self._connection, self._runs)
        self._runs, self._waiting = [], 0

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
