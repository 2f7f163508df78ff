"""Finding the JSON lines of events, which are kept in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, select

from nexus_agent.protocol import unpack_lines
from nexus_console.db.models import blocks

_AT_ONCE: Final = 500
"""Rows whose blocks are looked up together, and held in memory as they are stored."""

_Key = tuple[int, int]
"""(device id, stream)"""


class Stored(NamedTuple):
    """A row of `events` with its line. Times are ns since 1970."""

    device_id: int
    stream: int
    position: int
    epoch: int
    seq: int
    type: str
    time: int
    received: int
    clock: int
    line: str


_OWN: Final = len(Stored._fields) - 1
"""The columns of `events` begin with all fields but the line."""


def with_lines(connection: Connection, rows: Iterable[Row[Any]]) -> Iterator[Stored]:
    """*rows* of `events`, in their order; of what is not asked for, little is read."""
    source = iter(rows)
    while batch := list(islice(source, _AT_ONCE)):
        lines = _lines(connection, [row for row in batch if row.block is not None])
        for row in batch:
            line = row.line if row.block is None else lines[row.device_id, row.position]
            yield Stored._make((*row[:_OWN], line))


def _lines(connection: Connection, rows: Sequence[Row[Any]]) -> dict[_Key, str]:
    """The lines of *rows* by (device id, position)."""
    wanted: dict[_Key, dict[int, list[int]]] = {}
    for row in rows:
        of_stream = wanted.setdefault((row.device_id, row.stream), {})
        of_stream.setdefault(row.block, []).append(row.position)
    found: dict[_Key, str] = {}
    for (device_id, stream), positions in wanted.items():
        for block in connection.execute(
            select(blocks.c.first, blocks.c.payload)
            .filter_by(device_id=device_id, stream=stream)
            .where(blocks.c.first.in_(positions))
        ).all():
            lines = unpack_lines(block.payload)
            for position in positions[block.first]:
                found[device_id, position] = lines[position - block.first]
    return found
