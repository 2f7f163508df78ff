"""The states of a plugin's life, and what one is told to have become."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from nexus_agent.plugin import PluginError
from nexus_agent.runtime.context import Counters
from nexus_agent.runtime.description import Description, describe
from nexus_agent.runtime.meter import Account
from nexus_agent.runtime.run import Run
from nexus_agent.sections import Isolation, PluginSection


class PluginState(enum.StrEnum):
    """Where a plugin is in its life."""

    DISABLED = "disabled"
    """Switched off in the settings, or at the box."""
    BLOCKED = "blocked"
    """Needs a plugin that is not switched on, or itself by way of others."""
    WAITING = "waiting"
    """Needs a plugin that does not run yet."""
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    """Failed; waits to be started again."""
    QUARANTINED = "quarantined"
    """Failed too often; rests for long, then gets another chance."""
    STOPPED = "stopped"
    """Done, or stopped by a person or with the agent."""
    FAILED = "failed"
    """Cannot be loaded, has wrong settings, or said that trying again cannot help: a person has to
    look."""
    STUCK = "stuck"
    """Was told to end and does not; only the agent's own end ends it."""

    @property
    def recoverable(self) -> bool:
        """Whether the agent itself will bring it (back) to running."""
        return self in _RECOVERABLE

    @property
    def is_alarming(self) -> bool:
        """Whether a person should be told at once."""
        return self in _ALARMING


_RECOVERABLE = {
    PluginState.WAITING,
    PluginState.STARTING,
    PluginState.RUNNING,
    PluginState.BACKOFF,
    PluginState.QUARANTINED,
}
_ALARMING = {
    PluginState.BLOCKED,
    PluginState.QUARANTINED,
    PluginState.FAILED,
    PluginState.STUCK,
}


@dataclass(frozen=True, slots=True)
class Change:
    """A plugin has entered a state, or what is wrong with it has changed."""

    plugin: str
    state: PluginState
    reason: str
    isolation: Isolation
    alarming: bool


@dataclass(slots=True)
class Supervised:
    """One plugin under supervision.

    since: wall time (ns) of the last change of state. moved: why it runs in a process of its own
    though the settings have it as a task. stalls: monotonic times of its last offences.
    """

    section: PluginSection
    state: PluginState = PluginState.DISABLED
    since: int = 0
    restarts: int = 0
    reason: str = ""
    last_error: str = ""
    moved: str = ""
    switched_off: bool = False
    counters: Counters = field(default_factory=Counters)
    description: Description | None = None
    run: Run | None = None
    stalls: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.account = Account(self.name)
        self.read_class()

    account: Account = field(init=False)

    def read_class(self) -> None:
        """Know what the plugin says of itself, where its class is loaded here."""
        if self.section.plugin is not None:
            self.description = describe(self.section.plugin)

    @property
    def name(self) -> str:
        """The plugin's."""
        return self.section.name

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run."""
        return self.section.enabled and not self.switched_off

    @property
    def isolation(self) -> Isolation:
        """Where it runs."""
        return Isolation.PROCESS if self.moved else self.section.isolation

    def running(self) -> Run:
        """Its run. Raises PluginError where there is none."""
        if self.run is None or self.state is not PluginState.RUNNING:
            raise PluginError(f"plugin {self.name!r} is not running: {self.state}")
        return self.run
