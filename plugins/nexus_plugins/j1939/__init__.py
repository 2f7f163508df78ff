"""Faults and control units of commercial vehicles (SAE J1939)."""

from nexus_plugins.j1939.plugin import J1939Plugin

__all__ = ["J1939Plugin"]
