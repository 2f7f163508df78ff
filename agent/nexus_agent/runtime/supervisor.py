"""The supervisor: runs every plugin in a task of its own, restarts it, and says how it is.

A plugin never takes down the agent or its neighbours: `_run_once` and `invoke` catch whatever it
raises, SystemExit too.
"""

from __future__ import annotations

import asyncio
import enum
import random
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import BaseModel

from nexus_agent.clock import Clock
from nexus_agent.plugin import (
    CommandSpec,
    FatalError,
    Plugin,
    PluginError,
    Progress,
    Settings,
    commands_of,
)
from nexus_agent.runtime.context import Counters, PluginContext, Services

log = structlog.get_logger("supervisor")

BACKOFF_FIRST_S: Final = 1.0
BACKOFF_CAP_S: Final = 60.0
STEADY_S: Final = 60.0
"""A run this long is no failure to start: the backoff begins anew."""
BUDGET: Final = 10
BUDGET_WINDOW_S: Final = 600.0
"""More than BUDGET restarts within this window mean quarantine."""
QUARANTINE_S: Final = 900.0
TRACEBACK_CHARACTERS: Final = 2000
HAND_OVER_S: Final = 5.0
"""A plugin whose settings changed has this long to end before its state says that it does not."""


class PluginState(enum.StrEnum):
    """Where a plugin is in its life."""

    DISABLED = "disabled"
    """Switched off in the settings."""
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    """Failed; waits to be started again."""
    QUARANTINED = "quarantined"
    """Failed too often; rests for long, then gets another chance."""
    STOPPED = "stopped"
    """Done, or stopped with the agent."""
    FAILED = "failed"
    """Said that trying again cannot help; a person has to look."""

    @property
    def recoverable(self) -> bool:
        """Whether the agent itself will bring it (back) to running."""
        return self in {
            PluginState.STARTING,
            PluginState.RUNNING,
            PluginState.BACKOFF,
            PluginState.QUARANTINED,
        }


StateListener = Callable[["Supervised"], Awaitable[None]]


@dataclass(slots=True)
class Supervised:
    """One plugin under supervision. since: wall time (ns) of the last change of state."""

    name: str
    plugin: type[Plugin[Any]] | None
    settings: Settings | None
    state: PluginState = PluginState.DISABLED
    since: int = 0
    restarts: int = 0
    reason: str = ""
    last_error: str = ""
    counters: Counters = field(default_factory=Counters)
    instance: Plugin[Any] | None = None


class Supervisor:
    """Keep `run` running; cancel it to stop every plugin."""

    def __init__(
        self, plugins: list[Supervised], services: Services, clock: Clock, changed: StateListener
    ) -> None:
        self.plugins = {item.name: item for item in plugins}
        self._services = services
        self._clock = clock
        self._changed = changed
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Run every enabled plugin until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for item in self.plugins.values():
                item.since = self._clock.stamp().wall
                if item.plugin is not None:
                    self._start(group, item)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    def become(self, wanted: list[Supervised]) -> list[str]:
        """Have these plugins from now on, and no others; the names of those that change.

        A plugin whose class and settings stay goes on undisturbed. One that changes ends its run
        first, however long that takes; its counts go on.
        """
        names = {item.name for item in wanted}
        gone = [Supervised(name, None, None) for name in self.plugins if name not in names]
        changed = [item for item in (*wanted, *gone) if self._differs(item)]
        for item in changed:
            if (old := self.plugins.get(item.name)) is not None:
                item.counters, item.restarts = old.counters, old.restarts
            item.since = self._clock.stamp().wall
            if item.plugin is not None:
                item.state = PluginState.STARTING
            self.plugins[item.name] = item
            if self._group is not None:
                if (task := self._tasks.get(item.name)) is not None:
                    task.cancel()
                self._start(self._group, item)
        for item in gone:
            del self.plugins[item.name]
        return sorted(item.name for item in changed)

    def _differs(self, item: Supervised) -> bool:
        old = self.plugins.get(item.name)
        return old is None or (old.plugin, old.settings) != (item.plugin, item.settings)

    def _start(self, group: asyncio.TaskGroup, item: Supervised) -> None:
        self._tasks[item.name] = group.create_task(
            self._take_turn(item), name=f"supervise:{item.name}"
        )

    async def _take_turn(self, item: Supervised) -> None:
        """Supervise *item* once the run before it, with other settings, has ended."""
        turn = self._turns.setdefault(item.name, asyncio.Lock())
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await turn.acquire()
        except TimeoutError:
            reason = "its run with the former settings does not end; only a restart ends it"
            await self._enter(item, PluginState.BACKOFF, reason)
            await turn.acquire()
        try:
            if item.plugin is None:
                await self._enter(item, PluginState.DISABLED, "the settings do not ask for it")
            else:
                await self._supervise(item)
        finally:
            turn.release()

    async def _supervise(self, item: Supervised) -> None:
        loop = asyncio.get_running_loop()
        failures: deque[float] = deque(maxlen=BUDGET + 1)
        attempt = 0
        while True:
            await self._enter(item, PluginState.STARTING, "")
            started = loop.time()
            error = await self._run_once(item)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                return  # whatever it said to its cancellation
            if error is None:
                await self._enter(item, PluginState.STOPPED, "its work is done")
                return
            if isinstance(error, FatalError):
                await self._enter(item, PluginState.FAILED, str(error))
                return
            attempt = 1 if loop.time() - started >= STEADY_S else attempt + 1
            failures.append(loop.time())
            if len(failures) > BUDGET and failures[-1] - failures[0] <= BUDGET_WINDOW_S:
                failures.clear()
                attempt = 0
                await self._enter(
                    item, PluginState.QUARANTINED, f"{BUDGET} restarts did not help: {error}"
                )
                await asyncio.sleep(QUARANTINE_S)
            else:
                await self._enter(item, PluginState.BACKOFF, _words(error))
                await asyncio.sleep(backoff(attempt))
            item.restarts += 1

    async def _run_once(self, item: Supervised) -> BaseException | None:
        """Run a new instance to its end; what it raised, or None if it returned."""
        if item.plugin is None or item.settings is None:
            return FatalError("the plugin is switched off")
        context = PluginContext(item.name, item.settings, self._services, item.counters)
        try:
            item.instance = item.plugin(context)
            await self._enter(item, PluginState.RUNNING, "")
            await item.instance.run()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin boundary
            item.counters.errors += 1
            item.last_error = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
            log.warning("plugin_failed", plugin=item.name, error=_words(error))
            return error
        finally:
            item.instance = None
        return None

    async def _enter(self, item: Supervised, state: PluginState, reason: str) -> None:
        item.state, item.reason = state, reason
        item.since = self._clock.stamp().wall
        log.info("plugin_state", plugin=item.name, state=str(state), reason=reason)
        await self._changed(item)

    # -- commands ----------------------------------------------------------------------------

    def find(self, name: str) -> CommandSpec | None:
        """The specification of a command by its full name, such as `obd.scan`."""
        plugin_name, _, local = name.partition(".")
        item = self.plugins.get(plugin_name)
        if item is None or item.plugin is None:
            return None
        return commands_of(item.plugin).get(local)

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        """Run a command in its plugin. Raises PluginError, with words for the operator."""
        plugin_name = name.partition(".")[0]
        item = self.plugins[plugin_name]
        spec = self.find(name)
        if item.instance is None or spec is None:
            raise PluginError(f"plugin {plugin_name!r} is not running: {item.state}")
        handler = getattr(item.instance, spec.attribute)
        try:
            return await handler(args, progress)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            log.warning("command_failed", command=name, error=_words(error), exc_info=error)
            raise PluginError(f"{name} broke: {_words(error)}") from error


def backoff(attempt: int) -> float:
    """Seconds to wait before start number *attempt* + 1: exponential, half of it jitter."""
    ceiling = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** (attempt - 1))
    return ceiling / 2 + random.uniform(0, ceiling / 2)  # noqa: S311 - spreads load, no secret


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
