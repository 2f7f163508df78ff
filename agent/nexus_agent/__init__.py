"""Nexus Core's agent: the daemon on a shop's diagnostic PC, and the `nexus` command."""

from importlib.metadata import version

__version__ = version("nexus-core-agent")
