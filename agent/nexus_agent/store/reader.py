"""Reading segments back; one that is damaged on the disk is set aside, its loss declared."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial

import structlog

from nexus_agent.protocol import Segment, SegmentError, Stream, verify
from nexus_agent.store import ledger, salvage, segments
from nexus_agent.store.database import Database

log = structlog.get_logger("outbox")


class Reader:
    """Reads the segments of *database*; what it hands out is what was sealed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks = {stream: asyncio.Lock() for stream in Stream}

    def lock(self, stream: Stream) -> asyncio.Lock:
        """Held by whoever reads the segments of *stream* and relies on their bounds."""
        return self._locks[stream]

    async def held(
        self, stream: Stream, epoch: int, first: int, last: int, limit: int
    ) -> list[Segment]:
        """At most *limit* segments, delivered or not, with a sequence of first to last."""
        start = segments.row_id(epoch, first)
        rows = await self._database.read(segments.CONTAINING[stream], (start,))
        if rows[0][0] is not None and rows[0][0] >= segments.row_id(epoch, 1):
            start = rows[0][0]
        span = start, segments.row_id(epoch, last)
        return [s for s in await self.sound(stream, span, limit) if s.last >= first]

    async def sound(self, stream: Stream, span: tuple[int, int], limit: int) -> list[Segment]:
        """At most *limit* segments whose row ids are within *span*, oldest first."""
        sql = segments.WITHIN[stream]
        rows = await segments.fetch(self._database, stream, sql, (*span, limit), span)
        found: list[Segment] = []
        for row in rows:
            segment = segments.from_row(stream, row)
            try:
                verify(segment)
            except SegmentError as error:
                log.warning("segment_damaged", error=str(error))
                await self._set_aside(segment)
                continue
            found.append(segment)
        return found

    async def _set_aside(self, segment: Segment) -> None:
        await self._database.run(partial(_drop, segment))
        try:
            await asyncio.to_thread(salvage.keep_payload, self._database.path.parent, segment)
        except OSError as error:
            log.warning("damaged_segment_not_kept", error=error.strerror)


def _drop(segment: Segment, connection: sqlite3.Connection) -> None:
    """Delete *segment* and declare its loss."""
    entry = ledger.Entry(
        segment.stream,
        segment.epoch,
        segment.first,
        segment.last,
        segment.first_time,
        segment.last_time,
        ledger.DAMAGED,
    )
    ledger.write(connection, entry)
    edge = segments.row_id(segment.epoch, segment.first)
    connection.execute(segments.DELETE[segment.stream], (edge, edge))
    if segment.stream is Stream.ALERT:
        ledger.untell(connection, edge, edge)
