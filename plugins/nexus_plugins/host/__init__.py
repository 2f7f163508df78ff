"""The host plugin: how the box itself is doing."""

from nexus_plugins.host.plugin import HostPlugin, HostSettings

__all__ = ["HostPlugin", "HostSettings"]
