"""Asks control units one question at a time, with the patience that ISO 14229-2 prescribes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.uds.link import Garbled, Link, LinkError, NoRoute, Stopped
from nexus_plugins.uds.reply import BUSY, PENDING, Reply, describe, negative_code, read

S3_CLIENT_S: Final = 2.0
"""A tester is heard of this often (ISO 14229-2 table 5, S3 client)."""
TESTER_PRESENT: Final = b"\x3e\x00"
_PRESENT_SILENTLY: Final = b"\x3e\x80"
"""TesterPresent that wants no positive response (ISO 14229-1 section 10.6)."""
_BUSY_TRIES: Final = 5
_BUSY_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see the settings of the same names."""

    p2_s: float
    p2_star_s: float
    pending_max_s: float


class Client:
    """Talks over one link. Every method blocks, and may be called by any thread."""

    def __init__(self, link: Link, timing: Timing) -> None:
        self._link = link
        self._timing = timing
        self._lock = threading.Lock()
        self._last: tuple[int, float] | None = None

    def open(self) -> None:
        """Raises LinkError and what opening a CAN channel raises."""
        with self._lock:
            self._link.open()

    def probe(self) -> None:
        """See whether the link could be opened. Raises as `open`."""
        with self._lock:
            self._link.probe()

    def stop(self) -> None:
        """Let the thread that asks come back at once; then only `close` may follow."""
        self._link.stop.set()

    def close(self) -> None:
        with self._lock:
            self._link.close()

    def ask(self, target: int, request: bytes, echo: int) -> Reply:
        """Ask, and wait for the answer; echo: see `reply.read`.

        A link that breaks is opened anew, once, and the question repeated. Raises LinkError where
        that does not help, Stopped.
        """
        with self._lock:
            try:
                return self._patiently(target, request, echo)
            except LinkError:
                self._link.close()
                self._link.open()
                return self._patiently(target, request, echo)

    def keep(self) -> None:
        """Let the control unit that was asked last, and its gateway, know that we are here still.

        Does nothing while a question is being asked, or was a moment ago. Raises LinkError.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._last is not None and time.monotonic() - self._last[1] >= S3_CLIENT_S:
                self._send(self._last[0], _PRESENT_SILENTLY)
        except (NoRoute, Stopped):
            pass
        finally:
            self._lock.release()

    def _send(self, target: int, request: bytes) -> None:
        self._link.send(target, request)
        self._last = (target, time.monotonic())

    def _patiently(self, target: int, request: bytes, echo: int) -> Reply:
        """Repeat the question while the control unit is busy (NRC 0x21)."""
        for _ in range(_BUSY_TRIES):
            try:
                self._send(target, request)
            except NoRoute as error:
                return Reply(Quality.ABSENT, detail=str(error), there=error.there)
            reply = self._await(request, echo)
            if reply is not None:
                return reply
            self._link.pause(_BUSY_PAUSE_S)
        return Reply(Quality.REFUSED, detail=f"busy until the end ({describe(BUSY)})")

    def _await(self, request: bytes, echo: int) -> Reply | None:
        """The answer; None where the question is to be repeated."""
        until = time.monotonic() + self._timing.p2_s
        patience: float | None = None
        stray = False
        while True:
            try:
                payload = self._link.receive(until)
            except Garbled as error:
                return Reply(Quality.MALFORMED, detail=str(error))
            if payload is None:
                return self._silence(stray, patience)
            code = negative_code(request, payload)
            if code == BUSY:
                return None
            now = time.monotonic()
            if code == PENDING:
                patience = patience or now + self._timing.pending_max_s
                until = min(now + self._timing.p2_star_s, patience)
            else:
                reply = read(request, payload, echo)
                if reply is not None:
                    return reply
                stray = True
            if now >= until:
                return self._silence(stray, patience)

    def _silence(self, stray: bool, patience: float | None) -> Reply:
        if patience is not None:
            longest = self._timing.pending_max_s
            still = time.monotonic() >= patience
            detail = f"no answer within {longest:g} s" if still else "no answer in the end"
            return Reply(Quality.ABSENT, detail=f"{detail} ({describe(PENDING)})", lost=True)
        if stray:
            return Reply(Quality.MALFORMED, detail="only answers to other questions came")
        detail = f"no answer within {self._timing.p2_s:g} s"
        return Reply(Quality.ABSENT, detail=detail, there=self._link.vouches)
