"""From the newest frames of one channel to events: readings, and what the traffic was like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple

from nexus_agent.plugin import Context, EmitError, catalogue
from nexus_plugins.can_signals.directory import Directory
from nexus_plugins.can_signals.frames import Frames
from nexus_plugins.can_signals.settings import CanSignalsSettings
from nexus_plugins.can_signals.telling import Teller, Told

TICK_S: Final = 0.1
"""From one look at the newest frames to the next."""
_TRAFFIC_S: Final = 60.0
_SILENCE_S: Final = 1.0
_STEP_S: Final = 0.004
"""After so long others have the loop again."""
_SLICE: Final = 16
"""Readings that waited are handed over so many at a time."""


class Counts(NamedTuple):
    """What a source counts itself, since it began."""

    frames: int
    errors: int = 0
    dropped: int = 0


class Feed:
    """The channel or replay *name*. Times are seconds of a clock that only goes forward.

    report: takes the figures of the last minute in a few words.
    """

    def __init__(
        self,
        name: str,
        directory: Directory,
        context: Context[CanSignalsSettings],
        report: Callable[[str], None],
    ) -> None:
        self.frames = Frames(directory)
        self._name = name
        self._context = context
        self._report = report
        self._teller = Teller(name, context.settings)
        self._values = 0
        self._refused = False
        self._rested_at = 0.0
        self._looked_at = self._traffic_at = 0.0
        self._before: dict[str, int] = {}

    def begin(self, now: float) -> None:
        """The clock stands at *now*."""
        self._looked_at = self._traffic_at = now

    async def tick(self, now: float, counts: Counts) -> None:
        """Tell what is new; once a second what has gone, once a minute what the traffic was."""
        self._rested_at = time.monotonic()
        for place, data in self.frames.news():
            await self._hand_over(list(self._teller.see(place, data, now)))
        due = self._teller.due(now)
        while some := list(islice(due, _SLICE)):
            await self._hand_over(some)
        if now - self._looked_at >= _SILENCE_S:
            self._looked_at = now
            await self._look_for_silence(now)
        if now - self._traffic_at >= _TRAFFIC_S:
            self._tell_traffic(now, counts)

    async def end(self, now: float, counts: Counts) -> None:
        """Tell what is left: nothing more comes."""
        await self.tick(now, counts)
        rest = self._teller.rest(now)
        while some := list(islice(rest, _SLICE)):
            await self._hand_over(some)
        if now > self._traffic_at:
            self._tell_traffic(now, counts)

    async def _look_for_silence(self, now: float) -> None:
        for place in self._teller.silent(now):
            await self._hand_over(list(self._teller.lose(place, now)))
            self.frames.forget(place)

    async def _hand_over(self, told: list[Told]) -> None:
        """Emit them, and let others have the loop where it was busy with this for long."""
        if told:
            self._emit(told)
        if time.monotonic() - self._rested_at > _STEP_S:
            await asyncio.sleep(0)
            self._rested_at = time.monotonic()

    def _emit(self, told: list[Told]) -> None:
        kind = catalogue.vehicle.TelemetrySignal.type
        try:
            self._context.hand_over_many([(kind, data) for _, data in told])
        except EmitError as error:
            self._teller.untold(told)
            if not self._refused:
                self._context.log.warning("signals are not taken", reason=str(error))
            self._refused = True
        else:
            self._values += len(told)
            self._refused = False

    def _tell_traffic(self, now: float, counts: Counts) -> None:
        """Emit `can.traffic`; one that is not taken is part of the next."""
        totals = {
            "frames": counts.frames,
            "unknown": self.frames.unknown,
            "superseded": self.frames.superseded,
            "malformed": self.frames.malformed,
            "dropped": self.frames.dropped + counts.dropped,
            "errors": counts.errors,
            "values": self._values,
        }
        data: dict[str, Any] = {"channel": self._name, "seconds": round(now - self._traffic_at, 3)}
        data |= {name: total - self._before.get(name, 0) for name, total in totals.items()}
        try:
            self._context.hand_over(catalogue.vehicle.CanTraffic.type, data)
        except EmitError as error:
            self._context.log.warning("the traffic is not taken", reason=str(error))
        else:
            self._before, self._traffic_at = totals, now
            rate = data["frames"] / max(data["seconds"], TICK_S)
            self._report(f"{rate:.0f} frames/s, {len(self._teller)} signals")
