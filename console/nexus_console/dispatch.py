"""Getting queued commands to boxes, and ending those that no box took in time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from nexus_agent.protocol import Topic
from nexus_console import commands
from nexus_console.db.engine import Database, reason
from nexus_console.ingest import now_ns

PERIOD_S: Final = 1.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Broker(Protocol):
    """What the dispatcher asks of the link."""

    connections: int

    def publish(self, topic: str, payload: bytes, expiry_s: int | None = None) -> bool: ...


class Dispatcher:
    """Publishes a command when it is made, when the broker is back and when its box is back."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database, self._broker = database, broker
        self._connection = 0
        self._came_up: set[str] = set()
        self._lock = threading.Lock()

    def came_up(self, devices: set[str]) -> None:
        """These boxes have just connected: what waits for them is said again. From any thread."""
        with self._lock:
            self._came_up |= devices

    def publish(self, device: str, command: Row[Any]) -> bool:
        """Publish one command; the broker drops it when it expires. False: no connection."""
        remaining = -((now_ns() - command.expires) // 1_000_000_000)
        return remaining > 0 and self._broker.publish(
            Topic(device).command, command.envelope.encode(), remaining
        )

    async def run(self) -> None:
        """Look once a second, for ever. A database that is away only delays."""
        while True:
            try:
                await asyncio.to_thread(self.turn)
            except SQLAlchemyError as error:
                _log.warning("commands cannot be read now", reason=reason(error))
            await asyncio.sleep(PERIOD_S)

    def turn(self) -> None:
        """Publish what is due and end what is overdue. Blocks."""
        connection = self._broker.connections
        with self._lock:
            wanted, self._came_up = self._came_up, set()
        try:
            with self._database.read() as reading:
                overdue = commands.overdue(reading, now_ns())
                due = self._due(reading, wanted, again=connection != self._connection)
        except SQLAlchemyError:
            self.came_up(wanted)
            raise
        for command in due:
            self.publish(command.device, command)
        self._connection = connection
        if overdue:
            with self._database.write() as writing:
                for command_id in commands.expire(writing, now_ns()):
                    _log.info("command expired", command=command_id)

    def _due(self, reading: Any, wanted: set[str], *, again: bool) -> list[Row[Any]]:
        if again:
            return commands.queued(reading, now_ns())
        return commands.queued(reading, now_ns(), wanted) if wanted else []
