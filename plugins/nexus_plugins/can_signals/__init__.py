"""Signals on CAN channels and in logs of them, as DBC files name them; README.md says how."""

from nexus_plugins.can_signals.plugin import CanSignalsPlugin

__all__ = ["CanSignalsPlugin"]
