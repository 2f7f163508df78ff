"""Plays a log as if its frames came now, and tells their signals."""

from __future__ import annotations

import asyncio
from functools import partial

from nexus_agent.plugin import Context, FatalError, catalogue
from nexus_plugins.can_signals.channel import Report
from nexus_plugins.can_signals.directory import Directory
from nexus_plugins.can_signals.feed import TICK_S, Counts, Feed
from nexus_plugins.can_signals.log import DamagedError, Log
from nexus_plugins.can_signals.settings import CanSignalsSettings


class Player:
    """The replay *name* of the settings, whose messages are in the directory.

    Its clock is the log's own, so that `fast` tells what `real` does, only sooner.
    """

    def __init__(
        self,
        name: str,
        directory: Directory,
        context: Context[CanSignalsSettings],
        report: Report,
    ) -> None:
        self._name = name
        self._settings = context.settings.replays[name]
        self._context = context
        self._report = report
        self._feed = Feed(name, directory, context, partial(report, "figures"))
        self._clock = 0.0
        self._frames = 0
        self._errors = 0

    async def run(self) -> None:
        """Until the end of the log, or for ever. Raises FatalError where it cannot be read."""
        try:
            while await self._play_once():
                pass
        except DamagedError as error:
            await self._feed.end(self._clock, self._counts())
            why = f"the log cannot be played on: {error}"
            await self._tell_state("lost", why)
            raise FatalError(f"{self._name}: {why}") from error
        except FatalError as error:
            await self._tell_state("lost", str(error))
            raise
        await self._feed.end(self._clock, self._counts())
        await self._tell_state("silent", "the log has come to its end")

    async def _play_once(self) -> bool:
        """Whether it is to be played again."""
        log = Log(self._settings.file)
        try:
            await self._context.run_blocking(log.open)
            if not self._clock:
                await self._tell_state("connected", "the log is played")
            await self._play(log)
        finally:
            await self._context.run_blocking(log.close)
            self._frames += log.frames
            self._errors += log.errors
        return self._settings.repeat

    async def _play(self, log: Log) -> None:
        loop = asyncio.get_running_loop()
        begun, until, more = loop.time(), 0.0, True
        while more:
            until += TICK_S
            if self._settings.speed == "real":
                await asyncio.sleep(begun + until - loop.time())
            more = await self._context.run_blocking(log.take, until, self._feed.frames.take)
            self._clock += TICK_S
            await self._feed.tick(self._clock, self._counts(log))

    def _counts(self, log: Log | None = None) -> Counts:
        frames, errors = (0, 0) if log is None else (log.frames, log.errors)
        return Counts(self._frames + frames, self._errors + errors)

    async def _tell_state(self, state: str, detail: str) -> None:
        self._report("state", f"{state}: {detail}")
        self._context.log.info("adapter state", adapter=self._name, state=state, detail=detail)
        data = {"adapter": self._name, "state": state, "detail": detail}
        await self._context.emit(catalogue.vehicle.AdapterState.type, data)
