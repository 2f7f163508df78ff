"""The `nexus` command: what the agent on this box says, for people and for scripts.

It must answer at once: only Click is imported before a command is known.
"""

from nexus_agent.cli.commands import main

__all__ = ["main"]
