"""The thread tier: worker threads of one plugin for libraries that block.

Bounded, named `nexus-<plugin>_<n>`, and measured. A thread cannot be ended from outside: one whose
call does not return is counted for as long as that lasts, and a plugin with too many of them gets
no more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from nexus_agent.plugin import RetryError

T = TypeVar("T")

THREADS: Final = 4


class ThreadCosts:
    """Of one plugin over all of its runs: finished calls, their seconds, and those under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0
        self.seconds = 0.0
        self.busy = 0

    def begin(self) -> None:
        """A call starts."""
        with self._lock:
            self.busy += 1

    def end(self, seconds: float) -> None:
        """A call is over."""
        with self._lock:
            self.busy -= 1
            self.calls += 1
            self.seconds += seconds


class Workers:
    """The threads of one run of a plugin; `close` ends them, except those that are busy."""

    def __init__(self, plugin: str, costs: ThreadCosts) -> None:
        self._plugin = plugin
        self._costs = costs
        self._left = costs.busy
        """Threads that runs before this one left behind, and that may still come back."""
        self._turns = asyncio.Semaphore(THREADS)
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """*function*'s result, from a worker thread; waits while all of them are busy.

        One whose caller is cancelled goes on, and keeps its thread until it returns. Raises
        RetryError where calls of earlier runs still hold all the threads that there may be.
        """
        if self._left >= THREADS and self._costs.busy >= THREADS:
            raise RetryError(f"{self._costs.busy} of its blocking calls do not return")
        await self._turns.acquire()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"nexus-{self._plugin}")
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._measured, function, *args)
        future.add_done_callback(lambda done: self._give_back(loop, done))
        return await asyncio.wrap_future(future)

    def _measured(self, function: Callable[..., T], *args: Any) -> T:
        began = time.monotonic()
        self._costs.begin()
        try:
            return function(*args)
        finally:
            self._costs.end(time.monotonic() - began)

    def _give_back(self, loop: asyncio.AbstractEventLoop, _done: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._turns.release)

    def close(self) -> None:
        """Start nothing more; idle threads end now, busy ones when their call returns."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
