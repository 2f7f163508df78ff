"""Events that are taken and not yet committed, gathered into batches that share one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.protocol import Stream

WINDOW_S: Final = {
    Stream.ALERT: 0.002,
    Stream.EVENT: 0.002,
    Stream.TELEMETRY: 1.0,
    Stream.LOG: 1.0,
}
"""How long the first event of a segment waits for company."""

SEGMENT_EVENTS: Final = 1000
SEGMENT_BYTES: Final = 512 * 1024
"""A segment is sealed at once when it has this many events or bytes before compression."""

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Bytes not yet committed above which `emit` waits and a hand-over is refused."""

COMMIT_BYTES: Final = 2 * 1024 * 1024
"""Bytes that one transaction takes at most (a lone larger batch may), so that the write-ahead log
stays within its share of the quota."""

Also = Callable[[sqlite3.Connection], object]
"""Work that must be committed in the very transaction that commits an event."""


@dataclass(slots=True)
class Batch:
    """Events of one stream that will be committed together: one segment, or a few."""

    stream: Stream
    due: float
    done: asyncio.Future[None]
    tails: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    also: list[Also] = field(default_factory=list)
    size: int = 0
    synced: bool = True

    @property
    def full(self) -> bool:
        return len(self.tails) >= SEGMENT_EVENTS or self.size >= SEGMENT_BYTES

    def cuts(self) -> Iterator[tuple[int, int]]:
        """Where to cut it, so that no segment passes either limit (a lone event may)."""
        start = size = 0
        for end, tail in enumerate(self.tails):
            if end > start and (end - start == SEGMENT_EVENTS or size + len(tail) > SEGMENT_BYTES):
                yield start, end
                start, size = end, 0
            size += len(tail)
        yield start, len(self.tails)


class Buffer:
    """Batches in the order in which they are to be committed. It lives on the event loop."""

    def __init__(self) -> None:
        self._open: dict[Stream, Batch] = {}
        self._full: deque[Batch] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._space = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._open or self._full)

    @property
    def has_space(self) -> bool:
        return self._size < BUFFER_BYTES

    async def space(self) -> None:
        """Wait until there is room again."""
        while not self.has_space:
            self._space.clear()
            await self._space.wait()

    def add(self, stream: Stream, tails: Sequence[bytes], wall: int, *, synced: bool) -> Batch:
        """Put encoded events of one moment into the stream's open batch, and return that."""
        batch = self._open.get(stream)
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = Batch(stream, loop.time() + WINDOW_S[stream], loop.create_future())
            # Nobody may be waiting for it, and its failure is logged where it happens.
            batch.done.add_done_callback(_retrieve)
            self._open[stream] = batch
            self._changed.set()
        size = sum(map(len, tails))
        batch.tails += tails
        batch.times += [wall] * len(tails)
        batch.synced &= synced
        batch.size += size
        self._size += size
        if batch.full:
            self._full.append(self._open.pop(stream))
            self._changed.set()
        return batch

    def hurry(self, batch: Batch) -> None:
        """Have *batch* committed with the next turn."""
        batch.due = 0.0
        self._changed.set()

    def take(self, *, everything: bool = False) -> list[Batch]:
        """The batches that are due now, or *everything*, as far as one transaction takes them."""
        now = asyncio.get_running_loop().time()
        due: list[Batch] = []
        size = 0
        while self._full and (not due or size + self._full[0].size <= COMMIT_BYTES):
            due.append(self._full.popleft())
            size += due[-1].size
        if self._full:
            # A stream's open batch must not overtake its full ones.
            return due
        ready = [batch for batch in self._open.values() if everything or batch.due <= now]
        for batch in ready:
            del self._open[batch.stream]
        return due + ready

    def release(self, batches: Sequence[Batch]) -> None:
        """These are committed, or given up."""
        self._size -= sum(batch.size for batch in batches)
        if self.has_space:
            self._space.set()

    async def until_due(self, *, before: float | None = None) -> None:
        """Wait until a batch may be due, something came in, or the loop's time is *before*."""
        self._changed.clear()
        if self._full:
            return
        moments = [batch.due for batch in self._open.values()]
        moment = min(moments if before is None else [*moments, before], default=None)
        try:
            async with asyncio.timeout_at(moment):
                await self._changed.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """End `until_due`."""
        self._changed.set()


def _retrieve(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()


def parts(tails: list[bytes]) -> Iterable[list[bytes]]:
    """*tails* in runs that fit into one segment each, so that no batch grows without bound."""
    start = size = 0
    for end, tail in enumerate(tails):
        if end - start == SEGMENT_EVENTS or (end > start and size + len(tail) > SEGMENT_BYTES):
            yield tails[start:end]
            start, size = end, 0
        size += len(tail)
    yield tails[start:] if start else tails
