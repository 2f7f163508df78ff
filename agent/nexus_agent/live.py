"""Settings that may change under way: what every `nexus_agent.plugin.Context` does with them."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from nexus_agent.plugin import Settings

S = TypeVar("S", bound=Settings)


class LiveSettings(Generic[S]):
    """Base of the contexts: the settings in force, and a sleep that ends when they change."""

    def __init__(self, settings: S) -> None:
        self._settings = settings
        self._changed = asyncio.Event()

    def become(self, settings: S) -> None:
        """Have other settings from now on, as a reload of the agent does for `Plugin.live`."""
        self._settings = settings
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def settings(self) -> S:
        return self._settings

    async def sleep(self, seconds: float) -> bool:
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return False
        return True
