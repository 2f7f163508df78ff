"""What a `[plugins.<name>]` asks for: the plugin, where it runs, its limits and its settings."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from nexus_agent import discovery, settings
from nexus_agent.discovery import Code
from nexus_agent.plugin import Plugin, Settings
from nexus_agent.settings import Section, SettingsError


class Isolation(enum.StrEnum):
    """Where a plugin runs."""

    TASK = "task"
    """As a task of the agent: light, and trusted not to block, crash or grow."""
    PROCESS = "process"
    """In a process of its own, with limits."""


class Limits(Section):
    """What `limits` of a `[plugins.<name>]` takes: what the plugin may use."""

    memory_mb: Annotated[float, Field(gt=0, le=65_536)] = 256.0
    """Memory of its process."""
    files: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Open files, sockets and pipes of its process at once."""
    cpu_percent: Annotated[float, Field(gt=0)] = 80.0
    """How much of one processor it may take for half a minute: its process, or as a task of the
    agent its time on the event loop."""
    temporary_mb: Annotated[float, Field(gt=0)] = 64.0
    """Its process's temporary files, all together; they go with the process."""
    events_s: Annotated[float, Field(gt=0)] = 10_000.0
    """Events a second on average, in either tier; twenty times as many may come at once."""


@dataclass(frozen=True, slots=True)
class PluginSection:
    """One `[plugins.<name>]`.

    keys: the plugin's own settings as they were read, of which its model makes *settings* where
    the agent has loaded *plugin*, which it does for the task tier only. problem: why it cannot run.
    source: the file that says so. code: where it is, None if it is switched off or nowhere.
    """

    name: str
    code: Code | None = None
    isolation: Isolation = Isolation.TASK
    limits: Limits = field(default_factory=Limits)
    keys: Mapping[str, Any] = field(default_factory=dict)
    plugin: type[Plugin[Any]] | None = None
    settings: Settings | None = None
    problem: str | None = None
    source: str = ""

    @property
    def enabled(self) -> bool:
        """Whether it is to run."""
        return self.code is not None or self.problem is not None


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false", "1", "0"}:
        return value.lower() in {"true", "1"}
    raise ValueError(f"must be true or false, not {value!r}")


class OwnKeys(Section):
    """The keys of a `[plugins.<name>]` that are the agent's."""

    enabled: Annotated[bool, BeforeValidator(_switch)] = True
    """Whether the plugin is to run. One that is switched off is not imported."""
    isolation: Isolation | None = None
    """`task`: as a task of the agent, light and trusted. `process`: in a process of its own, with
    limits. By default the product's own plugins are tasks, and all others have processes."""
    limits: Limits = Field(default_factory=Limits)


OWN_KEYS: Final = frozenset(OwnKeys.model_fields)


def own_keys(
    name: str, section: Mapping[str, Any], source: str, environ: Mapping[str, str]
) -> OwnKeys:
    """The agent's keys among those of a plugin's *section*. Raises SettingsError."""
    keys = {key: value for key, value in section.items() if key in OWN_KEYS}
    at = ("plugins", name)
    return settings.validate(OwnKeys, keys, source, settings.variables(environ), at)


def read_section(
    name: str,
    section: Mapping[str, Any],
    bundles: Path,
    source: str,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> PluginSection:
    """What *section*, `[plugins.<name>]` of *source*, asks for.

    A plugin that cannot run has a `problem`, and costs nobody else. One that is switched off is not
    looked for. One that is to run in a process of its own is not imported: that process checks its
    settings. *environ* only serves to name the variable that brought a wrong value. Raises
    SettingsError for a wrong value of the agent's own keys.
    """
    own = own_keys(name, section, source, environ)
    keys = {key: value for key, value in section.items() if key not in OWN_KEYS}
    if not own.enabled:
        return PluginSection(name, limits=own.limits, keys=keys, source=source)
    known = PluginSection(name, limits=own.limits, keys=keys, source=source)
    try:
        code = discovery.find(name, bundles)
        isolation = own.isolation or (Isolation.TASK if code.own else Isolation.PROCESS)
        known = replace(known, code=code, isolation=isolation)
        if isolation is Isolation.PROCESS:
            return known
        plugin = discovery.load(code)
        origins = settings.variables(environ)
        checked = check(plugin, keys, source, origins)
    except discovery.DiscoveryError as error:
        return replace(known, problem=f"{source}: plugins.{name}: {error}")
    except SettingsError as error:
        return replace(known, problem=str(error))
    return replace(known, plugin=plugin, settings=checked)


def check(
    plugin: type[Plugin[Any]],
    keys: Mapping[str, Any],
    source: str,
    origins: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> Settings:
    """The plugin's settings. Raises SettingsError, whatever the plugin's own model raises."""
    try:
        return settings.validate(
            plugin.settings_model, keys, source, origins, ("plugins", plugin.name)
        )
    except SettingsError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{source}: plugins.{plugin.name}: the plugin fails to check them: {reason}"
        raise SettingsError(message) from error
