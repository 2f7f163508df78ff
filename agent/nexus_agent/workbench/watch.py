"""Sees the event loop blocked, and where."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from nexus_agent import testing
from nexus_agent.workbench.subject import Subject

BLOCKED_S: Final = 0.1
"""A loop that goes nowhere for longer is blocked."""
_LOOK_S: Final = 0.01
_CONTEXT: Final = testing.__file__
THREAD: Final = "nexus-check-watch"


class Watch:
    """Looks at the loop from a thread of its own; `found` has the longest block of each place.

    hopeless: called there, once, with the length and place of a step that is not waited for any
    longer, for it has taken more than *patience_s*.
    """

    def __init__(
        self, subject: Subject, hopeless: Callable[[float, str], None], patience_s: float
    ) -> None:
        self._subject = subject
        self._patience_s = patience_s
        self._hopeless = hopeless
        self._main = threading.get_ident()
        self._beaten = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name=THREAD, daemon=True)
        self._handle: asyncio.TimerHandle | None = None
        self.found: dict[str, float] = {}

    def start(self) -> None:
        """Watch the running loop."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        self._beaten = time.monotonic()
        self._handle = asyncio.get_running_loop().call_later(_LOOK_S, self._beat)

    def _look(self) -> None:
        known, blocked, first = self._beaten, 0.0, None
        last = time.monotonic()
        while not self._over.wait(_LOOK_S):
            now = time.monotonic()
            # Two looks' worth at most: a machine that is busy elsewhere holds us up as well.
            blocked += min(now - last, 2 * _LOOK_S)
            last = now
            if self._beaten != known:
                known, blocked, first = self._beaten, 0.0, None
                continue
            place = self._place() if blocked > BLOCKED_S else None
            if place is None:
                continue
            first = first or place
            self.found[first] = max(blocked, self.found.get(first, 0.0))
            if blocked > self._patience_s:
                self._hopeless(blocked, place)
                return

    def _place(self) -> str | None:
        """Where the plugin's own code holds the loop's thread up; None if it does not."""
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - documented, if not public
        while frame is not None:
            if frame.f_code.co_filename == _CONTEXT:
                return None  # what the context takes is not the plugin's
            place = self._subject.place(frame.f_code, frame.f_lineno)
            if place is not None:
                return place
            frame = frame.f_back
        return None
