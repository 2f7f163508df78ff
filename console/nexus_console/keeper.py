"""The background work on what is stored: cars' histories, sums of readings, and deletion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from nexus_agent.protocol import Stream
from nexus_console import retention
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database, reason
from nexus_console.live import VEHICLES, Change
from nexus_console.retention import Deleted
from nexus_console.rollups import Rollups
from nexus_console.vehicles.history import Histories

ROLL_UP_PERIOD_S: Final = 10.0
RETENTION_PERIOD_S: Final = 3600.0
LONGEST_YIELD_S: Final = 1.0
"""How long it stands back for ingest after a transaction: a backlog that takes hours is no reason
to do nothing for hours."""
GATHER_S: Final = 0.2
"""How long it waits, once woken, for the rest of a scan."""
_LOOK_S: Final = 0.02

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Keeper:
    """Keeps the tables in order. `run` is one thread's work, in transactions of a few ms.

    busy: whether ingest has messages waiting; the keeper lets it go first. tell: of cars' histories
    that have changed.
    """

    def __init__(
        self,
        database: Database,
        settings: RetentionSettings,
        *,
        busy: Callable[[], bool],
        tell: Callable[[set[Change]], None] = lambda _: None,
    ) -> None:
        self._database, self._settings, self._busy, self._tell = database, settings, busy, tell
        self._histories = Histories(database)
        self._rollups = Rollups(database)
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._next_sums = 0.0
        self._next_retention = 0.0
        # None of them waits for another one that the database refuses.
        self._work: dict[str, Callable[[], None]] = {
            "histories": self._tell_histories,
            "sums": self._sum_up,
            "retention": self._delete_old,
        }

    def run(self) -> None:
        """Work until `stop`. A database that is away is waited for."""
        while not self._stop.is_set():
            for what, work in self._work.items():
                try:
                    work()
                except SQLAlchemyError as error:
                    _log.error(
                        "database refused, will try again",
                        waits=what,
                        reason=reason(error),
                        next_try_s=ROLL_UP_PERIOD_S,
                    )
            if self._woken.wait(ROLL_UP_PERIOD_S):
                self._woken.clear()
                self._stop.wait(GATHER_S)

    def stop(self) -> None:
        """Finish the transaction at hand and let `run` return."""
        self._stop.set()
        self._woken.set()

    def heed(self, changes: Collection[Change]) -> None:
        """Somebody looks at a car while it is scanned: let its history not wait for the sums."""
        if any(what == Stream.EVENT for _, what in changes):
            self._woken.set()

    def _tell_histories(self) -> None:
        for step in self._steps(self._histories.turn()):
            if step.boxes:
                self._tell({(box, VEHICLES) for box in step.boxes})

    def _sum_up(self) -> None:
        began = time.monotonic()
        if self._stop.is_set() or began < self._next_sums:
            return
        self._next_sums = began + ROLL_UP_PERIOD_S
        if count := sum(self._steps(self._rollups.turn())):
            _log.debug("readings summed up", events=count, seconds=_since(began))

    def _delete_old(self) -> None:
        began = time.monotonic()
        if self._stop.is_set() or began < self._next_retention:
            return
        steps = self._steps(retention.turn(self._database, self._settings, time.time_ns()))
        deleted = sum(steps, Deleted())
        if deleted != Deleted():
            _log.info(
                "old data deleted",
                events=deleted.events,
                minutes=deleted.minutes,
                hours=deleted.hours,
                seconds=_since(began),
            )
        self._next_retention = began + RETENTION_PERIOD_S

    def _steps(self, turn: Iterator[Any]) -> Iterator[Any]:
        """*turn* with rests: as long as the work took, and longer while ingest is busy."""
        began = time.monotonic()
        for step in turn:
            yield step
            rest = time.monotonic() - began
            longest = time.monotonic() + LONGEST_YIELD_S
            while not self._stop.wait(rest) and self._busy() and time.monotonic() < longest:
                rest = _LOOK_S
            if self._stop.is_set():
                return
            began = time.monotonic()


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)
