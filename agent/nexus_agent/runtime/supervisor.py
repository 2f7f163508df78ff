"""The supervisor: gives every plugin a life of its own, and says how it is.

A plugin never takes down the agent or its neighbours: what it raises is caught in `life` and in
`invoke`, SystemExit too; what it takes is watched; one that blocks the agent's loop again and again
goes on in a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel

from nexus_agent.clock import Clock
from nexus_agent.config import SupervisorSection
from nexus_agent.plugin import CommandSpec, FatalError, PluginError, Progress, RetryError
from nexus_agent.runtime.allowance import Allowance
from nexus_agent.runtime.context import Counters, PluginContext, Services
from nexus_agent.runtime.life import House, lead
from nexus_agent.runtime.meter import Meter
from nexus_agent.runtime.process import ProcessRun
from nexus_agent.runtime.run import RunError, StuckError
from nexus_agent.runtime.stalls import Stall
from nexus_agent.runtime.states import Change, PluginState, Supervised
from nexus_agent.runtime.task import TaskRun, words
from nexus_agent.sections import Isolation, PluginSection
from nexus_agent.store.errors import StoreError

log = structlog.get_logger("supervisor")

LOOK_S: Final = 1.0
SHARE_WINDOW_S: Final = 30.0
OFFENCES_WITHIN_S: Final = 3600.0
HAND_OVER_S: Final = 6.0
"""A plugin whose run is to end has this long before its state says that it does not."""
UNTOLD: Final = 1000
OWN_STATE: Final = "agent"
"""Whose small state keeps what must outlive the agent: `moved` and `switched_off`."""

Tell = Callable[[Change], Awaitable[None]]


class Supervisor:
    """Keep `run` running; cancel it to stop every plugin.

    private: folders of the agent that no plugin's process may open. tell: told of every change.
    """

    def __init__(
        self,
        sections: Sequence[PluginSection],
        services: Services,
        clock: Clock,
        tell: Tell,
        policy: SupervisorSection | None = None,
        private: tuple[Path, ...] = (),
    ) -> None:
        self.plugins = {section.name: Supervised(section) for section in sections}
        self.policy = policy or SupervisorSection()
        self.meter = Meter()
        self._services = services
        self._private = private
        self._clock = clock
        self._tell = tell
        self._untold: deque[Change] = deque(maxlen=UNTOLD)
        self._news = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._leftovers: dict[str, TaskRun] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._shares: dict[str, tuple[float, float]] = {}
        self._house = House(self.policy, self._open, self._enter, self._ready)
        self._state = services.state_of(OWN_STATE)

    async def run(self) -> None:
        """Give every plugin its life until cancelled."""
        await self._recall()
        try:
            with self.meter.install():
                await self._supervise()
        finally:
            await self._tell_all()  # the outbox is closed after us

    async def _supervise(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._tell_changes(), name="supervisor:tell")
            group.create_task(self._look_after(), name="supervisor:look")
            for item in self.plugins.values():
                item.since = self._clock.stamp().wall
                self._begin(item)
            try:
                await asyncio.Event().wait()
            finally:
                self._group = None

    # -- who is to run -----------------------------------------------------------------------

    async def check(self, sections: Sequence[PluginSection]) -> str | None:
        """Why one of these cannot take the place of what is; None if all can."""
        for section in sections:
            old = self.plugins.get(section.name)
            if old is not None and old.section == section:
                continue
            if (why := section.problem or await self._try_out(section, old)) is not None:
                return why
        return None

    async def _try_out(self, section: PluginSection, old: Supervised | None) -> str | None:
        """What a plugin's own process says of its settings; None where it takes them."""
        if section.isolation is not Isolation.PROCESS or not section.enabled:
            return None
        try:
            if old is not None and isinstance(old.run, ProcessRun):
                async with asyncio.timeout(HAND_OVER_S):
                    return await old.run.check(section)
            async with self._process(section, Counters()):
                return None
        except TimeoutError:
            return None  # one that hangs is restarted anyway
        except FatalError as error:
            return str(error)
        except RunError as error:
            return f"{section.source}: plugins.{section.name}: {error}"

    def become(self, sections: Sequence[PluginSection]) -> list[str]:
        """Have these plugins from now on, and no others; the names of those that change.

        A plugin whose section stays goes on undisturbed, as does one of which only live settings
        change. Any other ends its run first, however long that takes; its counts go on.
        """
        wanted = {section.name: section for section in sections}
        changed: list[str] = []
        for name in [name for name in self.plugins if name not in wanted]:
            item = self.plugins.pop(name)
            item.section = PluginSection(name)
            self._begin(item)
            changed.append(name)
        changed += [section.name for section in wanted.values() if self._take(section)]
        self._notify()
        return sorted(changed)

    def _take(self, section: PluginSection) -> bool:
        """Have *section* from now on; whether that changes anything."""
        old = self.plugins.get(section.name)
        if old is None:
            self.plugins[section.name] = item = Supervised(section)
            self._begin(item)
            return True
        if old.section == section:
            return False
        if not self._take_live(old, section):
            old.section, old.moved = section, ""
            old.read_class()
            self._begin(old)
        return True

    def _take_live(self, item: Supervised, section: PluginSection) -> bool:
        """Whether the run that there is goes on with the new settings."""
        old, new = item.section, section
        keys = {
            key
            for key in {*old.keys, *new.keys}
            if (key in old.keys, old.keys.get(key)) != (key in new.keys, new.keys.get(key))
        }
        same = (old.code, old.isolation, old.limits, old.problem) == (
            new.code,
            new.isolation,
            new.limits,
            new.problem,
        )
        if item.run is None or item.description is None or not same:
            return False
        if not keys or not keys <= item.description.live:
            return False
        item.section = section
        item.run.become(section)
        return True

    def start(self, name: str) -> None:
        """Start a plugin that is stopped, or let one rest no longer. Raises PluginError."""
        item = self._known(name)
        if not item.is_wanted:
            raise PluginError(f"plugin {name!r} is switched off: enable it first")
        if item.state in {PluginState.RUNNING, PluginState.STARTING}:
            raise PluginError(f"plugin {name!r} is {item.state} already")
        self._begin(item)

    def stop(self, name: str, by: str) -> None:
        """Stop a plugin until somebody starts it, or the agent starts anew."""
        item = self._known(name)
        self._end(item)
        self._enter(item, PluginState.STOPPED, f"stopped by {by}")

    def restart(self, name: str) -> None:
        """End its run, if there is one, and begin another, in the tier that the settings say."""
        item = self._known(name)
        if not item.is_wanted:
            raise PluginError(f"plugin {name!r} is switched off: enable it first")
        item.moved = ""
        item.stalls.clear()
        self._begin(item)

    async def switch(self, name: str, *, on: bool) -> None:
        """Enable or disable a plugin at this box, whatever its settings say; it is remembered."""
        item = self._known(name)
        item.switched_off = not on
        item.moved = "" if on else item.moved
        await self._remember()
        self._begin(item)

    def _known(self, name: str) -> Supervised:
        if name not in self.plugins:
            raise PluginError(
                f"there is no plugin {name!r}; the settings have: {', '.join(sorted(self.plugins))}"
            )
        return self.plugins[name]

    # -- lives -------------------------------------------------------------------------------

    def _begin(self, item: Supervised) -> None:
        """Begin a life, after the one that there is."""
        self._end(item)
        if self._group is not None:
            self._lives[item.name] = self._group.create_task(
                self._live(item), name=f"supervise:{item.name}"
            )

    def _end(self, item: Supervised) -> None:
        if (task := self._lives.pop(item.name, None)) is not None:
            task.cancel()

    async def _live(self, item: Supervised) -> None:
        turn = self._turns.setdefault(item.name, asyncio.Lock())
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await turn.acquire()
        except TimeoutError:
            self._enter(item, PluginState.STUCK, "the run before does not end")
            await turn.acquire()
        try:
            await self._wait_for_leftover(item)
            if not item.section.enabled:
                self._enter(item, PluginState.DISABLED, "the settings do not ask for it")
            elif item.switched_off:
                self._enter(item, PluginState.DISABLED, "switched off at this box")
            else:
                await lead(item, self._house)
        except StuckError as error:
            self._enter(item, PluginState.STUCK, str(error))
        finally:
            turn.release()

    async def _wait_for_leftover(self, item: Supervised) -> None:
        """Until the task of a run that did not end in time has ended after all."""
        run = self._leftovers.pop(item.name, None)
        if run is not None and (task := run.leftover) is not None:
            self._enter(item, PluginState.STUCK, "the run before does not end")
            await asyncio.wait([task])

    def _open(self, item: Supervised) -> TaskRun | ProcessRun:
        """A run in the plugin's tier."""
        section, allowance = item.section, Allowance(item.section.limits.events_s)
        if item.isolation is Isolation.PROCESS:
            return self._process(section, item.counters)
        if section.plugin is None or section.settings is None:
            raise PluginError(f"plugin {item.name!r} is not loaded")
        context = PluginContext(
            item.name,
            section.settings,
            self._services,
            item.counters,
            allowance,
            section.plugin.emits,
        )
        run = TaskRun(section.plugin, context, (self.meter, item.account), self._spawn)
        self._leftovers[item.name] = run
        return run

    def _process(self, section: PluginSection, counters: Counters) -> ProcessRun:
        allowance = Allowance(section.limits.events_s)
        return ProcessRun(section, self._services, counters, allowance, self._private)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise PluginError("the agent is stopping")
        return self._group.create_task(work, name=name)

    async def _ready(self, item: Supervised) -> None:
        """Return once every plugin that *item* requires runs."""
        self._notify()
        while (obstacle := self._obstacle(item)) is not None:
            if (item.state, item.reason) != obstacle:
                self._enter(item, *obstacle)
            await self._news.wait()

    def _obstacle(self, item: Supervised) -> tuple[PluginState, str] | None:
        needs = item.description.requires if item.description else ()
        if (circle := self._circle(item.name, [])) is not None:
            return PluginState.BLOCKED, f"needs itself: {' → '.join(circle)}"
        for name in needs:
            other = self.plugins.get(name)
            if other is None or not other.is_wanted:
                return PluginState.BLOCKED, f"needs the plugin {name!r}, which is not switched on"
            if other.state is not PluginState.RUNNING:
                return PluginState.WAITING, f"waits for {name!r}, which is {other.state}"
        return None

    def _circle(self, name: str, path: list[str]) -> list[str] | None:
        """The way from the first of *path* by what each requires back to it."""
        if path and name == path[0]:
            return [*path, name]
        if name in path:
            return None  # a circle of others
        item = self.plugins.get(name)
        for need in item.description.requires if item and item.description else ():
            if (found := self._circle(need, [*path, name])) is not None:
                return found
        return None

    # -- states ------------------------------------------------------------------------------

    def _enter(self, item: Supervised, state: PluginState, reason: str) -> None:
        again = (item.state, item.reason) == (state, reason)
        failed_before = item.restarts > 0 and item.counters.errors > 1
        item.state, item.reason = state, reason
        item.since = self._clock.stamp().wall
        if state is PluginState.RUNNING:
            item.counters.alive = time.monotonic()
        log.info("plugin_state", plugin=item.name, state=str(state), reason=reason)
        first_failure = state is PluginState.BACKOFF and not failed_before
        alarming = (state.is_alarming or first_failure) and not again
        self._untold.append(Change(item.name, state, reason, item.isolation, alarming))
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _tell_changes(self) -> None:
        """Told apart from the lives: a slow disk must not hold up a restart."""
        while True:
            await self._tell_all()
            await self._news.wait()

    async def _tell_all(self) -> None:
        while self._untold:
            await self._tell(self._untold.popleft())

    # -- what they take ----------------------------------------------------------------------

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            for item in list(self.plugins.values()):
                if item.isolation is Isolation.TASK:
                    item.counters.loop_s = item.account.seconds
                    self._look_at_share(item, now)
                deadline_s = item.description.deadline_s if item.description else None
                if item.state is not PluginState.RUNNING or item.run is None or not deadline_s:
                    continue
                if now - item.counters.alive > deadline_s:
                    item.run.interrupt(RetryError(f"no sign of life for {deadline_s:g} s"))

    def _look_at_share(self, item: Supervised, now: float) -> None:
        """One that keeps the loop busy without blocking it for long takes it from all others."""
        since, before = self._shares.setdefault(item.name, (now, item.account.seconds))
        if now - since < SHARE_WINDOW_S:
            return
        self._shares[item.name] = now, item.account.seconds
        busy = item.account.seconds - before
        if busy / (now - since) * 100 > item.section.limits.cpu_percent:
            self.stalled(Stall(item.name, busy, ()))

    def stalled(self, stall: Stall) -> None:
        """Note an offence; with too many of them the plugin gets a process of its own."""
        item = self.plugins.get(stall.plugin or "")
        if item is None:
            return
        now = time.monotonic()
        item.counters.stalls += 1
        item.stalls.append(now)
        while now - item.stalls[0] > OFFENCES_WITHIN_S:
            item.stalls.popleft()
        place = f" at {stall.stack[-1].strip()}" if stall.stack else ""
        what = f"it kept the agent's event loop for {stall.seconds:.1f} s{place}"
        item.last_error = "\n".join((what, *stall.stack))
        if item.isolation is Isolation.PROCESS:
            return
        if len(item.stalls) >= self.policy.stalls and item.section.code is not None:
            self.move(item.name, f"{what}, offence {len(item.stalls)} within an hour")
        else:
            change = Change(item.name, item.state, what, item.isolation, alarming=True)
            self._untold.append(change)
            self._notify()

    def move(self, name: str, why: str) -> None:
        """Have a plugin go on in a process of its own, and remember that."""
        item = self.plugins.get(name)
        if item is None or item.isolation is Isolation.PROCESS or item.section.code is None:
            return
        log.warning("plugin_moved", plugin=name, reason=why)
        item.moved = why
        if self._group is not None:
            self._untold.append(Change(name, item.state, why, item.isolation, alarming=True))
            self._group.create_task(self._remember(), name="supervisor:remember")
            self._begin(item)

    async def _recall(self) -> None:
        """What earlier lives of the agent have learned."""
        moved: dict[str, str] = {}
        off: list[str] = []
        with suppress(StoreError):
            moved = await self._state.get("moved") or {}
            off = await self._state.get("switched_off") or []
        for item in self.plugins.values():
            item.moved = item.moved or moved.get(item.name, "")
            item.switched_off = item.name in off
            if item.section.isolation is Isolation.PROCESS or item.section.code is None:
                item.moved = ""
        await self._remember()

    async def _remember(self) -> None:
        try:
            await self._state.set(
                "moved", {item.name: item.moved for item in self.plugins.values() if item.moved}
            )
            off = sorted(item.name for item in self.plugins.values() if item.switched_off)
            await self._state.set("switched_off", off)
        except (StoreError, PluginError) as error:
            log.warning("plugin_states_not_kept", error=str(error))

    # -- commands ----------------------------------------------------------------------------

    def pids(self) -> frozenset[int]:
        """The processes of plugins: whoever calls from one of them is no person."""
        runs = (item.run for item in self.plugins.values())
        return frozenset(run.pid for run in runs if run is not None and run.pid is not None)

    def find(self, name: str) -> CommandSpec | None:
        """The specification of a command by its full name, such as `obd.scan`."""
        plugin_name, _, local = name.partition(".")
        item = self.plugins.get(plugin_name)
        if item is None or item.description is None or not item.is_wanted:
            return None
        return item.description.commands.get(local)

    def scanners(self) -> dict[str, Collection[str]]:
        """The commands that take part in a scan: full names, and the names of their arguments."""
        return {
            f"{item.name}.{local}": item.description.arguments[local].get("properties", {}).keys()
            for item in self.plugins.values()
            if item.description is not None and item.is_wanted
            for local, spec in item.description.commands.items()
            if spec.scans
        }

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        """Run a command in its plugin. Raises PluginError, with words for the operator."""
        item = self.plugins[name.partition(".")[0]]
        spec = self.find(name)
        run = item.running()
        if spec is None:
            raise PluginError(f"plugin {item.name!r} has no command {name!r}")
        try:
            return await run.invoke(spec, args, progress)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            log.warning("command_failed", command=name, error=words(error), exc_info=error)
            raise PluginError(f"{name} broke: {words(error)}") from error
