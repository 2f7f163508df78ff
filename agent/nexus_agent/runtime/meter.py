"""Who has the event loop: time on it by plugin, and whose step is under way.

A task that a plugin makes belongs to it, as do the tasks that such a task makes: they inherit its
context. `Meter.install` has the loop wrap their coroutines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any


class Account:
    """The time that one plugin has had on the loop, in seconds, over all of its runs."""

    __slots__ = ("name", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds = 0.0


_owner: ContextVar[Account | None] = ContextVar("nexus_plugin", default=None)

Step = tuple[Account, float]
"""Whose step it is, and the monotonic time at which it began."""


class Meter:
    """Keeps the accounts. `step` is read by another thread: one assignment, so never torn."""

    def __init__(self) -> None:
        self.step: Step | None = None

    @contextmanager
    def install(self) -> Iterator[None]:
        """Have the running loop charge the tasks that are made within `charged` from now on."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._make)
        try:
            yield
        finally:
            loop.set_task_factory(before)

    @contextmanager
    def charged(self, account: Account) -> Iterator[None]:
        """Tasks that are made in this block, and their tasks, are charged to *account*."""
        token = _owner.set(account)
        try:
            yield
        finally:
            _owner.reset(token)

    def _make(
        self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[Any]:
        owner = _owner.get()
        return asyncio.Task(
            work if owner is None else _Charged(work, owner, self), loop=loop, **options
        )


class _Charged(Coroutine[Any, Any, Any]):
    """A coroutine whose every step is timed."""

    __slots__ = ("_account", "_meter", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], account: Account, meter: Meter) -> None:
        self._work = work
        self._account = account
        self._meter = meter

    def send(self, value: Any) -> Any:
        began = time.monotonic()
        self._meter.step = self._account, began
        try:
            return self._work.send(value)
        finally:
            self._meter.step = None
            self._account.seconds += time.monotonic() - began

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        _trace: TracebackType | None = None,
    ) -> Any:
        began = time.monotonic()
        self._meter.step = self._account, began
        try:
            return self._work.throw(value if isinstance(value, BaseException) else kind)
        finally:
            self._meter.step = None
            self._account.seconds += time.monotonic() - began

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()
