"""Keeps a channel open through everything that happens to it, and tells how it is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from nexus_agent.plugin import Context, FatalError, PluginError, RetryError, catalogue
from nexus_plugins.canbus.bus import Filter
from nexus_plugins.canbus.pump import Pump, Sink
from nexus_plugins.canbus.settings import ChannelSettings

_FIRST_PAUSE_S: Final = 1.0
_GLANCE_S: Final = 0.1
_END_S: Final = 3.0
_GLANCES: Final = 300
_CALM_S: Final = 5.0
"""Bus-off is over when it has not come again for so long: a bad wire makes it come and go."""


class Keeper:
    """The channel that the settings call *name*: `adapter.state` at each change, and new attempts
    after a pause that grows up to *longest_s*. report: takes a few words for people at each change.
    silent_s: without a frame for so long the channel counts as silent; None where nobody minds.
    """

    def __init__(
        self,
        name: str,
        settings: ChannelSettings,
        context: Context[Any],
        sink: Sink,
        *,
        report: Callable[[str], None],
        filters: Iterable[Filter] | None = None,
        longest_s: float = 30.0,
        silent_s: float | None = None,
    ) -> None:
        self.state: str | None = None
        """As `adapter.state` has it; None until the first attempt."""
        self.detail = "it was not opened yet"
        self.pump = Pump(settings, sink, None if filters is None else list(filters))
        self._name = name
        self._settings = settings
        self._context = context
        self._report = report
        self._longest_s = longest_s
        self._silent_s = math.inf if silent_s is None else silent_s
        self._bus_offs = 0
        self._bus_off_at = -math.inf

    async def run(self) -> None:
        """Never returns. Raises FatalError where no further attempt can help."""
        try:
            await self._keep()
        finally:
            await self._give_back()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = first = min(_FIRST_PAUSE_S, self._longest_s)
        while True:
            begun = loop.time()
            try:
                await self._hold()
            except RetryError as error:
                await self._tell("bus_off" if self._is_bus_off() else "lost", str(error))
            except FatalError as error:
                await self._tell("lost", str(error))
                raise
            if loop.time() - begun > self._longest_s:
                pause = first
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._longest_s)

    async def _hold(self) -> None:
        """From opening the channel to its loss, which is raised."""
        lost: PluginError | None = None
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(), name=f"canbus:{self._name}")
            try:
                await self._context.run_blocking(self.pump.run)
            except PluginError as error:
                lost = error
            finally:
                watch.cancel()
        if lost is not None:
            raise lost

    async def _give_back(self) -> None:
        """Whoever opens the adapter next shall not find it taken."""
        self.pump.stop()
        for _ in range(_GLANCES):
            if self.pump.is_idle:
                return
            await asyncio.sleep(_END_S / _GLANCES)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        frames, heard_at = self.pump.frames, loop.time()
        while True:
            if self.pump.frames != frames or not self.pump.is_open:
                frames, heard_at = self.pump.frames, loop.time()
            if self._is_bus_off():
                await self._tell("bus_off", "the controller has gone off the bus: too many errors")
            elif loop.time() - heard_at >= self._silent_s:
                await self._tell("silent", f"{self._described()} is open, and no frame comes")
            elif self.pump.is_open:
                await self._tell("connected", self._described())
            await asyncio.sleep(_GLANCE_S)

    def _is_bus_off(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self.pump.bus_off or self.pump.bus_offs != self._bus_offs:
            self._bus_offs, self._bus_off_at = self.pump.bus_offs, now
        return now - self._bus_off_at < _CALM_S

    def _described(self) -> str:
        rate = "" if self._settings.bitrate is None else f" at {self._settings.bitrate} bit/s"
        return f"{self._settings.interface} {self._settings.channel}{rate}"

    async def _tell(self, state: str, detail: str) -> None:
        """Emit `adapter.state` when the state changes; the status shows the last of them."""
        self.detail = detail
        if state == self.state:
            return
        self.state = state
        self._report(f"{state.replace('_', ' ')}: {detail}")
        self._context.log.info("adapter state", adapter=self._name, state=state, detail=detail)
        data = {"adapter": self._name, "state": state, "detail": detail}
        await self._context.emit(catalogue.vehicle.AdapterState.type, data)
