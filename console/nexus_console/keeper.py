"""The background work on what is stored: summing up readings, and deleting what is too old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from nexus_console import retention
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database, reason
from nexus_console.retention import Deleted
from nexus_console.rollups import Rollups

ROLL_UP_PERIOD_S: Final = 10.0
RETENTION_PERIOD_S: Final = 3600.0
LONGEST_YIELD_S: Final = 1.0
"""How long it stands back for ingest after a transaction: a backlog that takes hours is no reason
to do nothing for hours."""
_LOOK_S: Final = 0.02

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Keeper:
    """Keeps the tables in order. `run` is one thread's work, in transactions of a few ms.

    busy: whether ingest has messages waiting; the keeper lets it go first.
    """

    def __init__(
        self, database: Database, settings: RetentionSettings, *, busy: Callable[[], bool]
    ) -> None:
        self._database, self._settings, self._busy = database, settings, busy
        self._rollups = Rollups(database)
        self._stop = threading.Event()
        self._next_retention = 0.0

    def run(self) -> None:
        """Work until `stop`. A database that is away is waited for."""
        while not self._stop.is_set():
            try:
                self._turn()
            except SQLAlchemyError as error:
                _log.error(
                    "database refused, will try again: sums and retention wait",
                    reason=reason(error),
                    next_try_s=ROLL_UP_PERIOD_S,
                )
            self._stop.wait(ROLL_UP_PERIOD_S)

    def stop(self) -> None:
        """Finish the transaction at hand and let `run` return."""
        self._stop.set()

    def _turn(self) -> None:
        began = time.monotonic()
        if count := sum(self._steps(self._rollups.turn())):
            _log.debug("readings summed up", events=count, seconds=_since(began))
        if self._stop.is_set() or began < self._next_retention:
            return
        began = time.monotonic()
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
