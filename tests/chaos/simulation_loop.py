"""Virtual time: an event loop that never waits, and a disk that is slow, full or broken."""

from __future__ import annotations

import asyncio
import random
import selectors
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.chaos.delivery_loop import BoxDatabase, Loop

from nexus_agent.store.errors import StoreError

T = TypeVar("T")

STANDSTILL: Final = 3_000
"""Turns of the loop without time moving on that can only be a loop that is busy with nothing."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting, it says how long the loop would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.on_wait: Callable[[float | None], None] = lambda _: None

    def select(self, timeout: float | None = None) -> list[Any]:
        self.on_wait(timeout)
        return []


class VirtualLoop(Loop):
    """When nothing is left to do now, it is the time of the next timer. turns: how often it ran."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.end = float("inf")
        """When the run must be over."""
        self.turns = 0
        self._still = 0
        self._failure: Exception | None = None
        selector = _Selector()
        asyncio.SelectorEventLoop.__init__(self, selector)
        selector.on_wait = self._wait

    def _wait(self, timeout: float | None) -> None:
        self.turns += 1
        self._still += 1
        if self._still > STANDSTILL:
            self._still = 0
            raise AssertionError("busy with nothing")
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        assert timeout is not None, "nothing will ever happen again"
        assert self.now < self.end, "it never ends"
        if timeout > 0:
            self._still = 0
            timers = self._scheduled  # type: ignore[attr-defined]
            self.now = max(self.now, timers[0].when())

    def attempt(self, check: Callable[[], None]) -> None:
        """End the run if *check* fails, whoever calls."""
        try:
            check()
        except AssertionError as error:
            self._failure = self._failure or error

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What goes wrong in a callback ends the run; of a task, who awaits it tells."""
        error = context.get("exception")
        if isinstance(error, Exception) and "handle" in context:
            self._failure = self._failure or error


class Disk:
    """What a box's database is on. Its writes are done one after another, whole, and take time.

    slow: seconds that a write takes at most. refuses: why writes fail at the moment, if they do.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop, self._chance = loop, chance
        self.slow = 0.0
        self.refuses: int | None = None
        self.odds = 1.0
        """How often it refuses."""
        self.on_commit: Callable[[], None] | None = None
        """Is told once, when work is done and not committed yet; the power may go then."""
        self._life = 0
        """What was begun in an earlier one is done by nobody."""
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._busy = False

    def die(self) -> None:
        """Nothing is written from now on."""
        self._life += 1
        self._queue.clear()

    def revive(self) -> None:
        self._life += 1
        self._queue.clear()
        self._busy, self.on_commit = False, None

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have *work* done in its turn."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append((work, future))
        if not self._busy:
            self._next()
        return future

    def _next(self) -> None:
        self._busy = bool(self._queue)
        if self._busy:
            self._later(self._do, self._life)

    def _later(self, step: Callable[..., None], *args: Any) -> None:
        if self.slow:
            self._loop.call_later(self._chance.uniform(0, self.slow), step, *args)
        else:
            self._loop.call_soon(step, *args)

    def _do(self, life: int) -> None:
        if life != self._life:
            return
        work, future = self._queue.popleft()
        if future.cancelled():
            self._next()
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - as an executor hands on whatever is raised
            self._later(self._tell, life, future, None, error)
        else:
            self._later(self._tell, life, future, result, None)

    def _tell(
        self, life: int, future: asyncio.Future[Any], result: Any, error: Exception | None
    ) -> None:
        if life != self._life:
            return
        if not future.cancelled():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._next()

    def check(self) -> None:
        """Raise what SQLite raises where the disk refuses."""
        if self.refuses is not None and self._chance.random() < self.odds:
            error = sqlite3.OperationalError("the disk refuses")
            error.sqlite_errorcode = self.refuses
            raise error

    def about_to_commit(self) -> None:
        tell, self.on_commit = self.on_commit, None
        if tell is not None:
            tell()
            raise sqlite3.OperationalError("the power is gone")


class DiskDatabase(BoxDatabase):
    """On such a disk."""

    def __init__(self, folder: Path, quota: int, disk: Disk) -> None:
        super().__init__(folder, quota)
        self._disk = disk

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await self._disk.submit(work)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def checked(connection: sqlite3.Connection) -> T:
            result = work(connection)
            self._disk.check()
            self._disk.about_to_commit()
            return result

        return super()._transact(checked)

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if self._disk.refuses == sqlite3.SQLITE_IOERR:
            try:
                self._disk.check()
            except sqlite3.Error as error:
                raise StoreError(str(error)) from error
        return await super().read(sql, parameters)

    def drop(self) -> None:
        """Close what is open, without the queue."""
        self._close()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader._connection.close()  # type: ignore[union-attr]
