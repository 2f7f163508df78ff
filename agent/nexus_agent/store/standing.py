"""How the outbox stands: what waits in each stream, and what that takes of the disk."""

from __future__ import annotations

from dataclasses import dataclass

from nexus_agent.protocol import Stream
from nexus_agent.store import segments
from nexus_agent.store.database import Database
from nexus_agent.store.positions import Positions


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What waits in one stream. oldest: wall time (ns) of the oldest event that waits, or None.

    next and acknowledged are sequences of the open epoch; what waits is of every epoch.
    """

    stream: Stream
    next: int
    acknowledged: int
    pending_events: int
    pending_segments: int
    pending_bytes: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """Bytes of database, write-ahead log and reserve, and their limit.

    trouble: why nothing can be written at the moment, None where all is well; since: wall time (ns)
    when it began; refused_events: how many events were not taken since the start, for any reason.
    """

    used_bytes: int
    quota_bytes: int
    trouble: str | None
    since: int | None
    refused_events: int = 0


async def of(database: Database, at: Positions, stream: Stream) -> StreamStatus:
    """What waits in *stream*."""
    count, events, size, oldest = 0, 0, 0, None
    for span in at.waiting(stream):
        row = (await database.read(segments.PENDING[stream], span))[0]
        count, events, size = count + row[0], events + int(row[1]), size + int(row[2])
        oldest = row[3] if oldest is None else oldest
    acknowledged, following = at.reached(stream, at.epoch), at.next[stream]
    return StreamStatus(stream, following, acknowledged, events, count, size, oldest)


async def oldest(database: Database, at: Positions) -> int | None:
    """Wall time (ns) of the oldest event that waits in any stream; None where none does."""
    found: list[int] = []
    for stream in Stream:
        for span in at.waiting(stream):
            if rows := await database.read(segments.FIRST[stream], span):
                found.append(rows[0][0])
                break
    return min(found, default=None)
