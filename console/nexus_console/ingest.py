"""From the broker's messages to committed rows, and only then to acknowledgements.

The MQTT thread puts messages into an `Inbox`; one writer thread takes what has gathered, writes it
in one transaction, and after the commit tells the broker (PUBACK) and the boxes (`down/ack`). What
is not committed is not acknowledged to anybody and comes again.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError, StatementError

from nexus_agent.protocol import Ack, Topic
from nexus_console.db.engine import Database, reason
from nexus_console.intake import Inbound, Intake, Mark, Outcome
from nexus_console.live import Change

QUEUE_MESSAGES: Final = 2_000
QUEUE_BYTES: Final = 64 * 1024 * 1024
BATCH_BYTES: Final = 1024 * 1024
"""Compressed bytes that one transaction takes at most, so that an acknowledgement is never far."""
LONGEST_RETRY_S: Final = 10.0

_MESSAGES_FAULT: Final = (StatementError, ArithmeticError, TypeError, ValueError, RecursionError)
"""What a single message's content may bring about; see `_is_the_databases_fault`."""

Publish = Callable[[str, bytes], bool]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_random = secrets.SystemRandom()


class Inbox:
    """Messages that wait to be written, bounded by number and bytes."""

    def __init__(self, *, max_messages: int = QUEUE_MESSAGES, max_bytes: int = QUEUE_BYTES) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._messages: deque[Inbound] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, message: Inbound) -> None:
        """Wait for room: to read no further from the broker is the back-pressure.

        After `close` the message is dropped; nobody has acknowledged it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room())
            if not self._closed:
                self._messages.append(message)
                self._bytes += len(message.payload)
                self._changed.notify_all()

    def take(self, max_bytes: int = BATCH_BYTES) -> list[Inbound]:
        """What has gathered, at least one message, waiting for it; nothing once closed."""
        batch: list[Inbound] = []
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._messages))
            size = 0
            while self._messages and not self._closed and size < max_bytes:
                batch.append(self._messages.popleft())
                size += len(batch[-1].payload)
            self._bytes -= size
            self._changed.notify_all()
        return batch

    def close(self) -> None:
        """Let go of whoever waits. What is still in here was not acknowledged and comes again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._messages)

    def _has_room(self) -> bool:
        return len(self._messages) < self._max_messages and self._bytes < self._max_bytes


@dataclass(slots=True)
class Totals:
    """Since the start of the process."""

    messages: int = 0
    events: int = 0
    transactions: int = 0
    failures: int = 0


class Writer:
    """Writes the inbox into the database. `run` is one thread's work."""

    def __init__(
        self,
        database: Database,
        inbox: Inbox,
        *,
        publish: Publish,
        came_up: Callable[[set[str]], None],
        tell: Callable[[set[Change]], None] = lambda _: None,
    ) -> None:
        self._database, self._inbox = database, inbox
        self._publish, self._came_up, self._tell = publish, came_up, tell
        self._stop = threading.Event()
        self.totals = Totals()
        self.error: str | None = None
        """Why the last transaction failed; None once one has gone through."""

    def run(self) -> None:
        """Write until `stop`."""
        while batch := self._inbox.take():
            outcome = self._write_until_done(batch)
            if outcome is None:
                return
            for message in batch:
                message.done()
            for mark in outcome.marks:
                self._acknowledge(mark)
            if outcome.came_up:
                self._came_up(outcome.came_up)
            self._tell(outcome.changes)

    def stop(self) -> None:
        """Finish the transaction at hand and let `run` return."""
        self._stop.set()
        self._inbox.close()

    def _write_until_done(self, batch: list[Inbound]) -> Outcome | None:
        """Write *batch*, however long the database is away; None if told to stop before."""
        attempt = 0
        while True:
            try:
                outcome = self._write_each_or_all(batch)
            except SQLAlchemyError as error:
                self.error = reason(error)
                self.totals.failures += 1
                delay = _random.uniform(0.1, min(LONGEST_RETRY_S, 0.2 * 2**attempt))
                attempt = min(attempt + 1, 10)
                _log.error(
                    "database refused, nothing is acknowledged",
                    reason=self.error,
                    messages=len(batch),
                    next_try_s=round(delay, 1),
                )
                if self._stop.wait(delay):
                    return None
                continue
            self.error = None
            self.totals.messages += len(batch)
            self.totals.events += outcome.events
            self.totals.transactions += 1
            return outcome

    def _write_each_or_all(self, batch: list[Inbound]) -> Outcome:
        """All in one transaction; where a single message cannot be stored, each in its own."""
        try:
            return self._write(batch)
        except _MESSAGES_FAULT as error:
            if _is_the_databases_fault(error):
                raise
            _log.warning("a batch could not be stored, taking its messages one by one")
        whole = Outcome()
        for message in batch:
            try:
                part = self._write([message])
            except _MESSAGES_FAULT as error:
                if _is_the_databases_fault(error):
                    raise
                self._set_aside(message, error)
                continue
            whole.marks += part.marks
            whole.came_up |= part.came_up
            whole.changes |= part.changes
            whole.events += part.events
        return whole

    def _write(self, batch: list[Inbound]) -> Outcome:
        with self._database.write() as connection:
            intake = Intake(connection)
            for message in batch:
                intake.take(message)
            return intake.finish()

    def _set_aside(self, message: Inbound, error: Exception) -> None:
        text = reason(error) if isinstance(error, SQLAlchemyError) else str(error)
        with self._database.write() as connection:
            Intake(connection).keep_unreadable(message, f"cannot be stored: {text}")

    def _acknowledge(self, mark: Mark) -> None:
        document = Ack(
            epoch=mark.epoch,
            stream=mark.stream,
            seq=mark.seq,
            session=mark.session,
            want=list(mark.want),
            renew=mark.order.reason if mark.order else None,
            above=mark.order.above if mark.order else None,
        )
        # Where there is no connection now, the box asks again by sending again.
        self._publish(Topic(mark.device).ack, document.encode())


def _is_the_databases_fault(error: Exception) -> bool:
    """Whether trying the same again may help. OperationalError is a StatementError too."""
    return isinstance(error, SQLAlchemyError) and not (
        isinstance(error, DataError | IntegrityError) or type(error) is StatementError
    )


def now_ns() -> int:
    """Wall time in ns since 1970."""
    return time.time_ns()
