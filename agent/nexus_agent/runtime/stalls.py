"""The loop-stall watchdog: a thread that sees the event loop blocked, and by whom.

A blocked loop cannot tell of itself. The thread looks a few times a second whether a step of a
plugin's task is under way for too long, or whether the loop has not turned at all, and takes the
stack of the loop's thread while it lasts.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import structlog

from nexus_agent import traces
from nexus_agent.runtime.meter import Meter

log = structlog.get_logger("stalls")

LIMIT_S: Final = 1.0
"""A step this long is an offence. Ordinary jitter, garbage collection and a slow disk's moment
among it, stays below a tenth."""
_LOOKS: Final = 5
_FRAMES: Final = 30


@dataclass(frozen=True, slots=True)
class Stall:
    """The loop stood still. plugin: whose code it was, None if nobody's; stack: innermost last."""

    plugin: str | None
    seconds: float
    stack: tuple[str, ...]


class StallWatch:
    """Watches the loop that runs `watching`.

    places: the folder or file of each plugin's code, see `nexus_agent.crashes.place_of`.
    stalled: told of each stall, on the loop, once it turns again.
    """

    def __init__(
        self,
        meter: Meter,
        places: Mapping[str, str],
        stalled: Callable[[Stall], None],
        limit_s: float = LIMIT_S,
    ) -> None:
        self._meter = meter
        self._places = places
        self._stalled = stalled
        self._limit_s = limit_s
        self._turned = time.monotonic()
        self._end = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop within the block."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(
            target=self._watch,
            args=(loop, threading.get_ident()),
            name="nexus-stalls",
            daemon=True,
        )
        beat = _Beat(loop, self._limit_s / _LOOKS, self._beat)
        self._turned = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            beat.stop()
            self._end.set()
            thread.join()

    def _beat(self) -> None:
        self._turned = time.monotonic()

    def _watch(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._end.wait(self._limit_s / _LOOKS):
            began, plugin = self._stands_still()
            if began is None:
                continue
            frame = sys._current_frames().get(watched)  # noqa: SLF001 - the documented door to a stack
            if frame is None:
                continue
            stall = self._look(frame, plugin)
            del frame
            log.warning("loop_blocked", plugin=stall.plugin, frames=list(stall.stack[-5:]))
            while self._stands_still()[0] == began and not self._end.wait(0.01):
                pass
            done = Stall(stall.plugin, time.monotonic() - began, stall.stack)
            try:
                loop.call_soon_threadsafe(self._stalled, done)
            except RuntimeError:
                return  # the loop is closed: nobody is left to be told

    def _stands_still(self) -> tuple[float | None, str | None]:
        """Since when (monotonic), and whose step it is; (None, None) while the loop turns."""
        limit = time.monotonic() - self._limit_s
        step = self._meter.step
        if step is not None and step[1] < limit:
            return step[1], step[0].name
        turned = self._turned
        if step is None and turned < limit:
            return turned, None  # a callback's, or the agent's own
        return None, None

    def _look(self, frame: FrameType, plugin: str | None) -> Stall:
        summary = traceback.extract_stack(frame, limit=_FRAMES)
        files = [one.filename for one in reversed(summary)]
        stack = tuple(traces.line_of(one.filename, one.lineno or 0, one.name) for one in summary)
        return Stall(plugin or traces.plugin_among(files, self._places), 0.0, stack)


class _Beat:
    """Calls *what* every *interval* seconds for as long as the loop turns."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval: float, what: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._what = what
        self._timer = loop.call_later(interval, self._again)

    def _again(self) -> None:
        self._what()
        self._timer = self._loop.call_later(self._interval, self._again)

    def stop(self) -> None:
        self._timer.cancel()
