"""The fleet console: takes in what boxes send, and shows and commands the fleet over HTTP."""

from importlib.metadata import version

__version__ = version("nexus-core-agent")
