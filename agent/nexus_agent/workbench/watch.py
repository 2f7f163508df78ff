"""Sees the event loop blocked, and where."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from nexus_agent.workbench.subject import Subject

BLOCKED_S: Final = 0.1
"""A loop that goes nowhere for longer is blocked."""
_LOOK_S: Final = 0.01
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
        first = None
        while not self._over.wait(_LOOK_S):
            late = time.monotonic() - self._beaten
            place = self._place() if late > BLOCKED_S else None
            # Seen twice, so that a machine that was busy elsewhere accuses nobody.
            if place is not None and first is not None:
                self.found[first] = max(late, self.found.get(first, 0.0))
                if late > self._patience_s:
                    self._hopeless(late, place)
                    return
            first = place and (first or place)

    def _place(self) -> str | None:
        """Where the plugin's own code is on the loop's thread; None if it is not there."""
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - documented, if not public
        while frame is not None:
            place = self._subject.place(frame.f_code, frame.f_lineno)
            if place is not None:
                return place
            frame = frame.f_back
        return None
