"""Events inside the box: every plugin may hear what the others say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

T = TypeVar("T")

QUEUE_LENGTH: Final = 1000


class Subscription(Generic[T]):
    """One listener's queue. When it is full the oldest item makes room; `dropped` counts them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue(QUEUE_LENGTH)
        self.dropped = 0

    def put(self, item: T) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(item)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self._queue.get()


class Bus(Generic[T]):
    """Hands every published item to every open subscription; a slow one costs only itself."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[T]] = []

    def publish(self, item: T) -> None:
        for subscription in self._subscriptions:
            subscription.put(item)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscription[T]]:
        subscription: Subscription[T] = Subscription()
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
