"""What every way to control units has in common, whatever carries it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod


class LinkError(Exception):
    """The link cannot be opened, or has broken; the message says why, for people.

    state: as in `adapter.state`.
    """

    def __init__(self, message: str, *, state: str = "lost") -> None:
        super().__init__(message)
        self.state = state


class NoRoute(Exception):  # noqa: N818 - an answer of the gateway, not an error of ours
    """The gateway did not hand a question on; the message says why, for people.

    there: whether it knows such a control unit all the same.
    """

    def __init__(self, message: str, *, there: bool) -> None:
        super().__init__(message)
        self.there = there


class Garbled(Exception):  # noqa: N818 - an answer that was damaged, not an error of ours
    """An answer came and cannot be put together; the message says why, for people."""


class Stopped(Exception):  # noqa: N818 - nobody waits for the answer any more
    """The caller was cancelled."""


class Link(ABC):
    """One way to control units, used by one thread at a time. Times are of `time.monotonic`.

    Every method but `close` looks at `stop` at least ten times a second and then raises Stopped.
    """

    POLL_S = 0.1
    vouches = False
    """Whether the link itself has said that the control unit which was asked last exists."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    @abstractmethod
    def open(self) -> None:
        """Raises LinkError; `close` closes what was opened until then."""

    @abstractmethod
    def close(self) -> None:
        """May be called at any time, and twice."""

    @abstractmethod
    def probe(self) -> None:
        """See whether it could be opened, and disturb nobody. Raises as `open`."""

    @abstractmethod
    def send(self, target: int, payload: bytes) -> None:
        """Ask the control unit *target*; what it said before is forgotten.

        Raises LinkError, NoRoute.
        """

    @abstractmethod
    def receive(self, until: float) -> bytes | None:
        """The next whole message of who was asked, or None when none came.

        Raises LinkError, Garbled.
        """

    def patience(self, until: float) -> float:
        """Seconds to wait now, at most a tenth; 0 when time is over."""
        if self.stop.is_set():
            raise Stopped
        return max(0.0, min(self.POLL_S, until - time.monotonic()))

    def pause(self, seconds: float) -> None:
        """Wait, but not for who is no longer waited for."""
        if self.stop.wait(seconds):
            raise Stopped
