"""The task tier: a plugin as a task of the agent's own loop.

It is cheap, and it is trust: such a plugin can block the loop, take all memory and end the process.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel

from nexus_agent.plugin import CommandSpec, Plugin, PluginError, Progress
from nexus_agent.runtime.context import PluginContext
from nexus_agent.runtime.description import Description, describe
from nexus_agent.runtime.meter import Account, Meter
from nexus_agent.runtime.run import STOP_S, Activity, RunError, StuckError
from nexus_agent.sections import PluginSection
from nexus_agent.traces import first_of

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Makes a task that somebody owns, of a coroutine and its name."""

TRACEBACK_CHARACTERS: Final = 2000


class TaskRun:
    """See `nexus_agent.runtime.run.Run`."""

    pid = None

    def __init__(
        self,
        plugin: type[Plugin[Any]],
        context: PluginContext,
        meter: tuple[Meter, Account],
        spawn: Spawn,
    ) -> None:
        self._plugin = plugin
        self._context = context
        self._meter, self._account = meter
        self._spawn = spawn
        self._instance: Plugin[Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._verdict: Exception | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._context.close()

    @property
    def description(self) -> Description:
        return describe(self._plugin)

    async def live(self, running: Callable[[], None]) -> Activity:
        with self._meter.charged(self._account):
            task = self._spawn(self._work(running), f"plugin:{self._plugin.name}")
        self._task = task
        try:
            while not task.done():
                await asyncio.wait([task], timeout=None if self._verdict is None else STOP_S)
                if self._verdict is not None and not task.done():
                    raise StuckError(f"{self._verdict}; and it does not end") from self._verdict
        except asyncio.CancelledError:
            await self._stop(task)
            raise
        return self._ending(task)

    async def _work(self, running: Callable[[], None]) -> None:
        try:
            self._instance = self._plugin(self._context)
            running()
            await self._instance.run()
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the boundary
            self._error = error
        finally:
            self._instance = None

    async def _stop(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task], timeout=STOP_S)
        if not task.done():
            raise StuckError(f"it does not end within {STOP_S:g} s of being cancelled")

    def _ending(self, task: asyncio.Task[None]) -> Activity:
        if self._verdict is not None:
            raise self._verdict
        if self._error is not None and isinstance(error := first_of(self._error), PluginError):
            raise error
        if self._error is not None:
            raise RunError(words(self._error), trimmed(self._error))
        if task.cancelled():
            raise RunError("CancelledError: it cancelled itself")
        return Activity.DONE

    @property
    def leftover(self) -> asyncio.Task[None] | None:
        """The plugin's task, if it still runs."""
        return self._task if self._task is not None and not self._task.done() else None

    def interrupt(self, error: Exception) -> None:
        self._verdict = error
        if self._task is not None:
            self._task.cancel()

    async def invoke(self, spec: CommandSpec, args: BaseModel, progress: Progress) -> Any:
        if self._instance is None:
            raise PluginError(f"plugin {self._plugin.name!r} is not running")
        handler = getattr(self._instance, spec.attribute)
        with self._meter.charged(self._account):
            return await handler(args, progress)

    def become(self, section: PluginSection) -> None:
        if section.settings is not None:
            self._context.become(section.settings)


def words(error: BaseException) -> str:
    """*error* on one line; what a plugin says itself stands as it is."""
    error = first_of(error)
    if isinstance(error, PluginError | RunError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def trimmed(error: BaseException) -> str:
    """The end of its traceback."""
    if isinstance(error, RunError) and error.trace:
        return error.trace[-TRACEBACK_CHARACTERS:]
    return "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
