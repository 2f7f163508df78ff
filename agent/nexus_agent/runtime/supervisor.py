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

    async def run(self) -> None:
        """Run every enabled plugin until cancelled."""
        async with asyncio.TaskGroup() as group:
            for item in self.plugins.values():
                item.since = self._clock.stamp().wall
                if item.plugin is not None:
                    group.create_task(self._supervise(item), name=f"supervise:{item.name}")

    async def _supervise(self, item: Supervised) -> None:
        loop = asyncio.get_running_loop()
        failures: deque[float] = deque(maxlen=BUDGET + 1)
        attempt = 0
        while True:
            await self._enter(item, PluginState.STARTING, "")
            started = loop.time()
            error = await self._run_once(item)
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
