"""An event loop, and a box's database on it, that do all work of threads in the loop's own thread.

So the same chance gives the same run. What is done on a thread elsewhere is done whole here, too:
a transaction is one step for everybody else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from nexus_agent.store.database import Database
from nexus_agent.store.errors import store_error

T = TypeVar("T")


class Loop(asyncio.SelectorEventLoop):
    """Its time stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        return done(self, func, *args)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.run_until_complete(work)

    async def quiet(self) -> None:
        """Until nothing more can happen without time or a word from outside."""
        calm = 0
        while calm < 3:
            await asyncio.sleep(0)
            calm = 0 if self._ready else calm + 1  # type: ignore[attr-defined]


def done(loop: asyncio.AbstractEventLoop, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """The future of *func*, which is done now."""
    future: asyncio.Future[T] = loop.create_future()
    try:
        future.set_result(func(*args))
    except Exception as error:  # noqa: BLE001 - as an executor hands on whatever is raised
        future.set_exception(error)
    return future


class _Reader:
    """What the database needs of aiosqlite's connection, without its thread."""

    def __init__(self, uri: str) -> None:
        self._connection: sqlite3.Connection | None = sqlite3.connect(
            uri, uri=True, isolation_level=None
        )

    async def execute_fetchall(
        self, sql: str, parameters: Sequence[Any] = ()
    ) -> Iterable[tuple[Any, ...]]:
        if self._connection is None:
            raise ValueError("no active connection")  # as aiosqlite says it
        await asyncio.sleep(0)
        return self._connection.execute(sql, parameters).fetchall()

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class BoxDatabase(Database):
    """The agent's own, read without a thread."""

    async def _open_reader(self) -> None:
        try:
            reader = _Reader(f"{self.path.absolute().as_uri()}?mode=ro")
            await reader.execute_fetchall("PRAGMA query_only=ON")
            self._reader = reader  # type: ignore[assignment]
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
