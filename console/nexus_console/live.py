"""Telling whoever watches that something has changed, and no more than that.

What changed is read from the API: a watcher who was away asks again and has missed nothing, so
that nothing needs to be kept for anybody. Changes that a slow watcher has not fetched yet fall
together, which bounds what waits for it by the number of boxes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

PRESENCE: Final = "presence"
COMMANDS: Final = "commands"
VEHICLES: Final = "vehicles"
"""What may change of a box beside its streams, which go by their own names. VEHICLES: the history
of a car that it has told of."""

MAX_WATCHERS: Final = 500
"""Pages that one console serves; each is one open connection."""

Change = tuple[str, str]
"""(device, stream or one of the above)"""


class Watcher:
    """One who watches. Used on the event loop only."""

    def __init__(self) -> None:
        self._pending: dict[str, set[str]] = {}
        self._something = asyncio.Event()

    def add(self, changes: Iterable[Change]) -> None:
        for device, what in changes:
            self._pending.setdefault(device, set()).add(what)
        self.wake()

    def wake(self) -> None:
        self._something.set()

    async def wait(self, seconds: float) -> dict[str, list[str]]:
        """What has changed, by device, waiting for it; nothing after *seconds* or a `wake`."""
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return {}
        self._something.clear()
        pending, self._pending = self._pending, {}
        return {device: sorted(what) for device, what in sorted(pending.items())}


class Live:
    """Hands changes from the threads that commit them to all watchers. Made on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watchers: set[Watcher] = set()
        self.closed = False

    @contextmanager
    def watching(self) -> Iterator[Watcher]:
        """A watcher for the length of a block."""
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def tell(self, changes: Collection[Change]) -> None:
        """Call after the commit, from any thread."""
        if self._watchers and changes:
            self._loop.call_soon_threadsafe(self._spread, changes)

    def close(self) -> None:
        """Let every watcher go."""
        self.closed = True
        for watcher in self._watchers:
            watcher.wake()

    @property
    def full(self) -> bool:
        return len(self._watchers) >= MAX_WATCHERS

    def __len__(self) -> int:
        return len(self._watchers)

    def _spread(self, changes: Iterable[Change]) -> None:
        for watcher in self._watchers:
            watcher.add(changes)
