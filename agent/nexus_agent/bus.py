"""Events inside the box: every plugin may hear what the others say."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from fnmatch import translate
from typing import Final

from nexus_agent.plugin import BusEvent, Overflow

QUEUE_LENGTH: Final = 1000
_TYPES_KNOWN: Final = 1000


class Listener:
    """One subscription's queue (see `nexus_agent.plugin.Subscription`); `put` never waits."""

    def __init__(self, patterns: tuple[str, ...], overflow: Overflow) -> None:
        self._pattern = re.compile("|".join(map(translate, patterns)) or "(?s:.*)")
        self._overflow = overflow
        self._known: dict[str, bool] = {}
        self._queue: deque[BusEvent] = deque()
        self._latest: dict[tuple[str, str], BusEvent] = {}
        self._news = asyncio.Event()
        self.dropped = 0

    def wants(self, event_type: str) -> bool:
        """Whether events of this type are subscribed to."""
        if (wanted := self._known.get(event_type)) is None:
            if len(self._known) >= _TYPES_KNOWN:
                self._known.clear()
            wanted = self._known[event_type] = self._pattern.fullmatch(event_type) is not None
        return wanted

    def put(self, event: BusEvent) -> None:
        """Queue *event*; the policy says what goes where the queue is full."""
        if self._overflow is Overflow.LATEST:
            key = event.source, event.type
            if key not in self._latest and len(self._latest) >= QUEUE_LENGTH:
                del self._latest[next(iter(self._latest))]
                self.dropped += 1
            self._latest[key] = event
        elif len(self._queue) < QUEUE_LENGTH:
            self._queue.append(event)
        elif self._overflow is Overflow.DROP_OLDEST:
            self._queue.popleft()
            self._queue.append(event)
            self.dropped += 1
        else:
            self.dropped += 1
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[BusEvent]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            while self._latest:
                yield self._latest.pop(next(iter(self._latest)))
            self._news.clear()
            await self._news.wait()


class Bus:
    """Hands every event to every listener that wants its type; a slow one costs only itself."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens at all."""
        return bool(self._listeners)

    def publish(self, event: BusEvent) -> None:
        """Queue *event* for whoever wants it."""
        for listener in self._listeners:
            if listener.wants(event.type):
                listener.put(event)

    @contextmanager
    def listen(
        self, *patterns: str, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> Iterator[Listener]:
        """Events whose type matches one of *patterns* (all, if none is given) within the block."""
        listener = Listener(patterns, overflow)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
