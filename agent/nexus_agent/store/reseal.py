"""Merging small segments that were never sent: alone an event takes 316 bytes, in a hundred 50."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from nexus_agent.protocol import Segment, SegmentError, Stream, merge
from nexus_agent.store import segments
from nexus_agent.store.buffer import SEGMENT_EVENTS
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox

SMALL_EVENTS: Final = 50
SMALL_BYTES: Final = 4096
"""A segment with fewer events and bytes than these is worth merging."""
FEWEST: Final = 8
"""Segments that must come together before it is worth the writing."""
_READ_AT_ONCE: Final = 500
_ROUNDS: Final = 20


async def reseal(outbox: Outbox, database: Database, stream: Stream, edge: int) -> int:
    """Merge neighbours of *stream* behind *edge* that were never sent; return where to go on.

    A bounded number of rounds, each a short hold of the stream. Raises StoreError.
    """
    for _ in range(_ROUNDS):
        async with outbox.reading(stream):
            edge = max(edge, outbox.positions.sent[stream], outbox.released(stream))
            wanted = edge, SMALL_EVENTS, SMALL_BYTES, _READ_AT_ONCE
            span = edge + 1, segments.MAX_ID
            found = await segments.fetch(database, stream, segments.SMALL[stream], wanted, span)
            rows = [row for row in found if _waits(outbox, stream, row[0])]
            if len(rows) < FEWEST:
                break
            run = _first_run(stream, rows)
            if len(run) >= FEWEST:
                try:
                    whole = await asyncio.to_thread(merge, [segment for segment, _ in run])
                except SegmentError:
                    break  # who sends it finds and declares the damage
                synced = all(one for _, one in run)
                await database.run(partial(_put, whole, synced))
                if whole.count < SMALL_EVENTS and len(run) == len(rows):
                    break  # small still: it is merged again with what comes
        edge = segments.row_id(run[-1][0].epoch, run[-1][0].last)
    return edge


def _waits(outbox: Outbox, stream: Stream, identity: int) -> bool:
    """Whether a segment is not acknowledged: it would take what waits behind it out of sight."""
    epoch = segments.epoch_of(identity)
    return segments.sequence(identity) > outbox.positions.reached(stream, epoch)


def _first_run(stream: Stream, rows: list[Any]) -> list[tuple[Segment, bool]]:
    """The first small segments of one epoch that follow each other without a gap."""
    run: list[tuple[Segment, bool]] = []
    events = 0
    for segment, synced in _segments(stream, rows):
        fits = events + segment.count <= SEGMENT_EVENTS
        follows = not run or (segment.epoch, segment.first) == (
            run[-1][0].epoch,
            run[-1][0].last + 1,
        )
        if fits and follows:
            run.append((segment, synced))
            events += segment.count
        else:
            break
    return run


def _segments(stream: Stream, rows: list[Any]) -> Iterator[tuple[Segment, bool]]:
    for row in rows:
        yield segments.from_row(stream, row), row[5] == 1


def _put(whole: Segment, synced: bool, connection: sqlite3.Connection) -> None:
    first = segments.row_id(whole.epoch, whole.first)
    last = segments.row_id(whole.epoch, whole.last)
    connection.execute(segments.DELETE[whole.stream], (first, last))
    segments.insert(connection, whole, synced=synced)
