"""One trial of a plugin: it is started, cancelled at a given await, and what it leaves is seen."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus_agent.plugin import EmitError, Plugin, Settings, Stream
from nexus_agent.testing import Emitted, RecordingContext
from nexus_agent.workbench import watch
from nexus_agent.workbench.subject import Subject

_NAP_S: Final = 0.002
"""As long as `sleep` takes here: a trial has no time for more."""
_DESCRIPTORS: Final = Path("/proc/self/fd")


class TrialContext(RecordingContext[Settings]):
    """Remembers the types of events and what was refused, and sleeps only for a moment."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.types: set[str] = set()
        self.refused: list[str] = []

    def _keep(self, event: Emitted) -> None:
        self.types.add(event.type)

    def _take(self, events: Sequence[tuple[str, Any]], stream: Stream, *, promised: bool) -> None:
        try:
            super()._take(events, stream, promised=promised)
        except EmitError as error:
            self.refused.append(str(error))
            raise

    async def sleep(self, seconds: float) -> bool:
        return await super().sleep(min(seconds, _NAP_S))


class Stepped:
    """Runs a coroutine, counts its awaits, and cancels it at one of them."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], stop_at: int, subject: Subject
    ) -> None:
        self._coroutine = coroutine
        self._stop_at = stop_at
        self._subject = subject
        self.count = 0
        self.place = "its beginning"
        """Where it was cancelled."""
        self.cancelled_at: float | None = None
        self.busy: tuple[float, str] = (0.0, "")
        """CPU seconds of its longest step, and where that ended."""

    async def run(self) -> None:
        try:
            await self
        except SystemExit as error:  # would end the loop, and all that is checked on it
            raise RuntimeError(f"SystemExit({error.code})").with_traceback(
                error.__traceback__
            ) from None

    def __await__(self) -> Generator[Any, None, None]:
        error: BaseException | None = None
        while True:
            begun = time.thread_time()
            try:
                awaited = (
                    self._coroutine.send(None) if error is None else self._coroutine.throw(error)
                )
            except StopIteration:
                return
            finally:
                self._measure(time.thread_time() - begun)
            self.count += 1
            if self.count == self._stop_at:
                self.cancel(asyncio.current_task())
            try:
                yield awaited
                error = None
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as thrown:  # noqa: BLE001 - whatever it is, it is the coroutine's
                error = thrown

    def _measure(self, busy_s: float) -> None:
        if busy_s > self.busy[0]:
            self.busy = busy_s, self._subject.place_of_wait(self._coroutine)

    def cancel(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel it where it is, once."""
        if task is not None and self.cancelled_at is None:
            self.place = self._subject.place_of_wait(self._coroutine)
            self.cancelled_at = time.monotonic()
            task.cancel()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial. awaits: how many there were; cancelled: where, None if it ended before.

    ended_s: seconds from there to its end, None if it did not end. error: what it raised; left:
    what it left behind, in words.
    """

    awaits: int
    cancelled: str | None
    ended_s: float | None
    error: BaseException | None
    left: str | None
    context: TrialContext
    busy: tuple[float, str]


async def attempt(subject: Subject, settings: Settings, stop_at: int, within_s: float) -> Outcome:
    """Start the plugin and cancel it at its await number *stop_at*, or after *within_s*.

    It then has as long again to end.
    """
    before = _Belongings.now()
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="worker")
    loop.set_default_executor(executor)
    context = TrialContext(settings)
    try:
        plugin: Plugin[Any] = subject.plugin(context)
        stepped = Stepped(plugin.run(), stop_at, subject)
    except Exception as raised:  # noqa: BLE001 - the constructor is somebody else's code
        executor.shutdown(wait=False)
        return Outcome(0, None, 0.0, raised, None, context, (0.0, ""))
    task = loop.create_task(stepped.run(), name=f"plugin:{plugin.name}")
    await asyncio.wait([task], timeout=within_s)
    stepped.cancel(None if task.done() else task)
    begun = stepped.cancelled_at or time.monotonic()
    await asyncio.wait([task], timeout=max(0.0, begun + within_s - time.monotonic()))
    ended_s = time.monotonic() - begun if task.done() else None
    executor.shutdown(wait=False, cancel_futures=True)
    error = _error_of(task)
    left = None
    if task.done():
        del task, plugin
        left = await _left_behind(before, begun + within_s)
    place = stepped.place if stepped.cancelled_at is not None else None
    return Outcome(stepped.count, place, ended_s, error, left, context, stepped.busy)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """What the task raised; None if it has not ended, or was cancelled."""
    if not task.done() or task.cancelled():
        return None
    return task.exception()


@dataclass(frozen=True, slots=True)
class _Belongings:
    """What this process holds at a moment."""

    tasks: frozenset[asyncio.Task[Any]]
    threads: frozenset[threading.Thread]
    files: frozenset[tuple[str, str]]

    @classmethod
    def now(cls) -> _Belongings:
        threads = {thread for thread in threading.enumerate() if thread.name != watch.THREAD}
        return cls(frozenset(asyncio.all_tasks()), frozenset(threads), frozenset(_open_files()))

    def beyond(self, before: _Belongings) -> str | None:
        """In words, what is here and was not there before."""
        if tasks := self.tasks - before.tasks:
            return "a task still runs: " + min(task.get_name() for task in tasks)
        if threads := self.threads - before.threads:
            return "a thread still runs: " + min(thread.name for thread in threads)
        if files := self.files - before.files:
            return "left open: " + min(target for _, target in files)
        return None


def _open_files() -> list[tuple[str, str]]:
    found = []
    for file in _DESCRIPTORS.iterdir():
        with suppress(FileNotFoundError):  # the one of the listing itself
            found.append((file.name, str(file.readlink())))
    return found


async def _left_behind(before: _Belongings, deadline: float) -> str | None:
    """What is still there once the deadline has passed; None as soon as nothing is."""
    collected = False
    while True:
        left = _Belongings.now().beyond(before)
        if left is None:
            return None
        if not collected:  # what only a cycle keeps is not held, Python is only slow to see it
            gc.collect()
            collected = True
        elif time.monotonic() > deadline:
            return left
        await asyncio.sleep(_NAP_S)
