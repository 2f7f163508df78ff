"""Nexus Core's agent: the daemon on a shop's diagnostic PC, and the `nexus` command."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`__version__`, read when asked for: importlib.metadata slows the `nexus` command."""
    if name == "__version__":
        from importlib.metadata import version

        return version("nexus-core-agent")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
