"""The events that the box still has, for people here: pages of them, and new ones as they come."""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from nexus_agent.protocol import (
    MAX_EPOCH,
    MAX_SEQUENCE,
    Event,
    Segment,
    SegmentError,
    Stream,
    format_time,
    open_segment,
)
from nexus_agent.status.source import SCHEMA, QueryError
from nexus_agent.store import segments
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox

FOLLOWED_SEGMENTS: Final = 1000
"""So many may wait for a follower that reads slowly; then its answer ends."""
SCAN_SEGMENTS: Final = 50
"""Segments read at a time when looking for events that fit a question."""
_CURSOR = re.compile(r"(alert|event|telemetry|log)/([0-9]{1,6})/([0-9]{1,14})")


class History:
    """Questions about the events of *outbox*, delivered or not. They raise StoreError."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._followers: list[asyncio.Queue[Segment | None]] = []
        outbox.on_sealed(self._pass_on)

    def _pass_on(self, segment: Segment) -> None:
        for queue in self._followers:
            if queue.qsize() < FOLLOWED_SEGMENTS:
                queue.put_nowait(segment)
            elif queue.qsize() == FOLLOWED_SEGMENTS:
                queue.put_nowait(None)

    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        """See `Source.events`. A cursor is `stream/epoch/seq`, or several joined by commas: only
        the streams that it names are looked at.
        """
        streams = [stream] if stream else list(Stream)
        if after is None:
            reached = {
                one: (self._outbox.epoch, self._outbox.position(one)[1] - 1) for one in streams
            }
            pages = {one: await self._newest(one, limit, event_type) for one in streams}
            chosen = list(heapq.merge(*pages.values(), key=_by_time))[-limit:]
            # What was committed while we read is in the page or behind the cursor, not between.
            for event in chosen:
                reached[event.stream] = max(reached[event.stream], (event.epoch, event.seq))
        else:
            reached = _parse_cursor(after, streams)
            pages = {
                one: await self._behind(one, start, limit, event_type)
                for one, start in reached.items()
            }
            chosen = list(heapq.merge(*pages.values(), key=_by_time))[:limit]
            reached |= {event.stream: (event.epoch, event.seq) for event in chosen}
        following = ",".join(f"{one}/{e}/{seq}" for one, (e, seq) in reached.items())
        return {
            "v": SCHEMA,
            "events": [_document(event) for event in chosen],
            # Where the cursor names none of the streams, "" would begin all over again.
            "next": following or after,
        }

    async def _behind(
        self, stream: Stream, start: tuple[int, int], limit: int, event_type: str | None
    ) -> list[Event]:
        """The first *limit* events of one stream behind (epoch, seq) *start*, in order."""
        target = segments.row_id(start[0], start[1] + 1)
        rows = await self._database.read(segments.CONTAINING[stream], (target,))
        edge = (rows[0][0] or target) - 1
        found: list[Event] = []
        while len(found) < limit:
            rows = await self._fetch(stream, segments.NEXT, edge, (edge + 1, segments.MAX_ID))
            for row in rows:
                found += [
                    event
                    for event in _readable(segments.from_row(stream, row))
                    if (event.epoch, event.seq) > start and event_type in {None, event.type}
                ]
            if len(rows) < SCAN_SEGMENTS:
                break
            edge = rows[-1][0]
        return found[:limit]

    async def _newest(self, stream: Stream, limit: int, event_type: str | None) -> list[Event]:
        """The last *limit* events of one stream, in order."""
        edge = segments.row_id(MAX_EPOCH + 1, 0)
        found: list[Event] = []
        while len(found) < limit:
            rows = await self._fetch(stream, segments.BEFORE, edge, (0, edge - 1))
            for row in reversed(rows):
                page = _readable(segments.from_row(stream, row))
                found = [e for e in page if event_type in {None, e.type}] + found
                if len(found) >= limit:
                    break
            if len(rows) < SCAN_SEGMENTS:
                break
            edge = rows[0][0]
        return found[-limit:]

    async def _fetch(
        self, stream: Stream, sql: Mapping[Stream, str], edge: int, span: tuple[int, int]
    ) -> list[Any]:
        parameters = edge, SCAN_SEGMENTS
        return await segments.fetch(self._database, stream, sql[stream], parameters, span)

    @asynccontextmanager
    async def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Events as they are committed, from now on; it ends before one would be missing."""
        queue: asyncio.Queue[Segment | None] = asyncio.Queue()

        async def documents() -> AsyncIterator[dict[str, Any]]:
            while (segment := await queue.get()) is not None:
                if stream is not None and segment.stream is not stream:
                    continue
                for event in _readable(segment):
                    if event_type is None or event.type == event_type:
                        yield _document(event)

        self._followers.append(queue)
        try:
            yield documents()
        finally:
            self._followers.remove(queue)


def _readable(segment: Segment) -> list[Event]:
    """The events of a segment; none of a damaged one, which the outbox's salvage deals with."""
    try:
        return open_segment(segment)
    except SegmentError:
        return []


def _document(event: Event) -> dict[str, Any]:
    return {
        "cursor": f"{event.stream}/{event.epoch}/{event.seq}",
        "epoch": event.epoch,
        "stream": str(event.stream),
        "seq": event.seq,
        "type": event.type,
        "source": event.source,
        "time": format_time(event.time),
        "synced": event.synced,
        "data": event.data,
    }


def _by_time(event: Event) -> int:
    return event.time


def _parse_cursor(text: str, streams: list[Stream]) -> dict[Stream, tuple[int, int]]:
    """Where to start in each of *streams* that the cursor names; "" is before all of them."""
    if not text:
        return dict.fromkeys(streams, (0, 0))
    found: dict[Stream, tuple[int, int]] = {}
    for part in text.split(","):
        match = _CURSOR.fullmatch(part)
        start = (int(match[2]), int(match[3])) if match else (MAX_EPOCH + 1, 0)
        if match is None or start[0] > MAX_EPOCH or start[1] > MAX_SEQUENCE:
            raise QueryError(f"after={text!r} is not a cursor, such as 'event/1/42'")
        if Stream(match[1]) in streams:
            found[Stream(match[1])] = start
    return found
