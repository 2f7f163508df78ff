"""Finding plugins by entry point. A plugin's code is imported only when its section asks for it."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from nexus_agent.plugin import Plugin

GROUP: Final = "nexus.plugins"


class DiscoveryError(Exception):
    """A plugin cannot be found or loaded; the message is one line and names it."""


def available() -> dict[str, EntryPoint]:
    """Every installed plugin's entry point by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load(name: str) -> type[Plugin[Any]]:
    """The class of the plugin *name*. Raises DiscoveryError."""
    entries = available()
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(sorted(entries))}"
        )
        raise DiscoveryError(f"no plugin {name!r} is installed; {hint}")
    try:
        plugin = entries[name].load()
    except (Exception, SystemExit) as error:
        # A module may raise anything while it is imported, and it is somebody else's.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DiscoveryError(f"plugin {name!r} does not load: {reason}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        raise DiscoveryError(f"plugin {name!r}: {entries[name].value} is not a Plugin class")
    own = getattr(plugin, "name", None)
    if own != name:
        raise DiscoveryError(f"plugin {name!r} calls itself {own!r}")
    return plugin
