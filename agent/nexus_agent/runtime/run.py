"""One run of a plugin, in either tier: what the supervisor knows of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Protocol

from pydantic import BaseModel

from nexus_agent.plugin import CommandSpec, Progress
from nexus_agent.runtime.description import Description
from nexus_agent.sections import PluginSection

STOP_S: Final = 5.0
"""A run that is cancelled has this long to give back what it holds."""


class RunError(Exception):
    """A run broke. trace: its traceback as text, as far as there is one."""

    def __init__(self, text: str, trace: str = "") -> None:
        super().__init__(text)
        self.trace = trace


class StuckError(RunError):
    """The run does not end although it was told to; only the agent's own end ends it."""


class Activity(enum.Enum):
    """How a run ended that did not break."""

    DONE = "done"
    STOPPED = "stopped"


class Run(Protocol):
    """Use it as a context manager: the plugin is loaded within, and nothing is left behind it."""

    @property
    def description(self) -> Description:
        """What the plugin says of itself."""

    @property
    def pid(self) -> int | None:
        """Its process, if it has one of its own."""

    async def live(self, running: Callable[[], None]) -> Activity:
        """Run the plugin to its end; *running* is called once it does.

        Raises RetryError, FatalError or RunError. Cancelled, it stops the plugin first, and raises
        StuckError if that does not work.
        """

    def interrupt(self, error: Exception) -> None:
        """End `live` with *error*."""

    async def invoke(self, spec: CommandSpec, args: BaseModel, progress: Progress) -> Any:
        """Run a command. Raises PluginError, or whatever the plugin does."""

    def become(self, section: PluginSection) -> None:
        """Have the settings of *section*, which differ in live ones only."""
