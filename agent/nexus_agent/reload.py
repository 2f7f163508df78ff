"""New settings for a running agent: SIGHUP has the file read again, and what can change changes.

The loader is that of the start, and the environment wins as it did then. Wrong settings change
nothing. What only a new process can take in is named and left alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel

from nexus_agent import logs
from nexus_agent.config import AgentConfig, load_config, plugin_sections
from nexus_agent.manage.commands import Commander
from nexus_agent.runtime.context import VehicleNames
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.sections import PluginSection
from nexus_agent.settings import SettingsError
from nexus_agent.status.scrapes import MetricsServer
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.policy import Policy
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic
from nexus_agent.systemd import Notifier

log = structlog.get_logger("settings")

Apply = Callable[[AgentConfig], Awaitable[None] | None]
"""Brings new settings into force, at once or when what it returns has been awaited."""


class Reloader:
    """`ask` for a reload at any time; keep `run` running, which does it.

    source: the file and the environment that *config* was read from. live: what brings a key, or a
    section with all of its keys, into force, by its dotted name; plugins are the supervisor's.
    """

    def __init__(
        self,
        config: AgentConfig,
        source: tuple[Path, Mapping[str, str]],
        supervisor: Supervisor,
        notifier: Notifier,
        live: Mapping[str, Apply],
    ) -> None:
        self._config = config
        self._file, self._environ = source
        self._supervisor = supervisor
        self._notifier = notifier
        self._live = live
        self._asked = asyncio.Event()
        self.error: str | None = None
        """Why the last reload changed nothing; None where it was a success."""
        self.waiting: list[str] = []
        """Keys whose new values only a restart brings into force."""

    def ask(self) -> None:
        """Have the settings read again; asking twice before that is asking once."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever that was asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # sd_notify(3): the time must come in the very message that says RELOADING=1.
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(now), STATUS="Reading settings")
            await self._reload()
            self._notifier.send(READY="1", STATUS=self.error or "Settings read")

    async def _reload(self) -> None:
        try:
            config, plugins = await asyncio.to_thread(self._read)
            self.error = await self._supervisor.check(plugins)
        except SettingsError as error:
            self.error = str(error)
        if self.error is not None:
            log.error("settings_refused", error=self.error)
            return
        keys = list(changes(self._config, config))
        applied = [name for name in self._live if any(_within(key, name) for key in keys)]
        for name in applied:
            if (coming := self._live[name](config)) is not None:
                await coming
        changed = self._supervisor.become(plugins)
        self.waiting = [key for key in keys if not any(_within(key, name) for name in applied)]
        self._config = _merged(self._config, config, self.waiting)
        log.info(
            "settings_reloaded",
            applied=[key for key in keys if key not in self.waiting],
            plugins=changed,
        )
        if self.waiting:
            log.warning("settings_need_a_restart", keys=self.waiting)

    def _read(self) -> tuple[AgentConfig, list[PluginSection]]:
        """What the start does with the file and the environment. Imports plugins that are new."""
        config = load_config(self._file, self._environ)
        return config, plugin_sections(config, str(self._file), self._environ)


def live(
    outbox: Outbox,
    housekeeper: Housekeeper,
    commander: Commander,
    names: VehicleNames,
    sender: Sender,
    traffic: Traffic,
    scrapes: MetricsServer,
) -> dict[str, Apply]:
    """What a running agent can take in, by the key or section that says it."""

    async def move_scrapes(new: AgentConfig) -> None:
        scrapes.move(new.metrics.address)
        await scrapes.tried()

    def follow_link(new: AgentConfig) -> None:
        traffic.policy = Policy(new.link)
        sender.wake()

    def keep_history(new: AgentConfig) -> None:
        housekeeper.keep = Keep(new.history.hours, new.history.megabytes)

    def give_up(new: AgentConfig) -> None:
        housekeeper.lifetime = new.outbox.ttl_hours

    def allow(new: AgentConfig) -> None:
        commander.allow = frozenset(new.safety.allow)

    def show_vin(new: AgentConfig) -> None:
        names.show_vin = new.privacy.vin == "plain"

    return {
        "log": lambda new: logs.configure(new.log),
        "privacy.vin": show_vin,
        "safety.allow": allow,
        "history": keep_history,
        "outbox.emit_deadline_s": lambda new: outbox.be_patient(new.outbox.emit_deadline_s),
        "outbox.ttl_hours": give_up,
        "link": follow_link,
        "metrics.listen": move_scrapes,
    }


def changes(old: BaseModel, new: BaseModel, at: str = "") -> Iterator[str]:
    """The dotted names of the keys whose values differ. Plugins are not looked at."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from changes(before, after, f"{at}{name}.")
        elif before != after and f"{at}{name}" != "plugins":
            yield f"{at}{name}"


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


M = TypeVar("M", bound=BaseModel)


def _merged(old: M, new: M, kept: list[str], at: str = "") -> M:
    """*new* with the values of *old* for the keys that are *kept*: what is in force now."""
    values: dict[str, object] = {}
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        key = f"{at}{name}"
        if key in kept:
            values[name] = before
        elif isinstance(before, BaseModel) and isinstance(after, BaseModel):
            values[name] = _merged(before, after, kept, f"{key}.")
    return new.model_copy(update=values)
