"""How a command ends when it cannot do its work."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
MISUSED: Final = 2
NO_AGENT: Final = 3
DENIED: Final = 4


class AgentError(Exception):
    """The agent did not give what was asked for; exit_code tells scripts why."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
