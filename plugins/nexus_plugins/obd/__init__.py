"""The obd plugin: what a vehicle's control units say through an ELM327 adapter."""

from nexus_plugins.obd.plugin import ObdPlugin

__all__ = ["ObdPlugin"]
