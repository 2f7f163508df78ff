"""Schema migrations of the two databases: `agent` and `console`.

Alembic costs memory and time to import, so `upgrade` is called only by those who have seen in
`alembic_version` that the schema is not at `HEADS[which]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from sqlalchemy import Connection

Which = Literal["agent", "console"]

HEADS: Final[dict[Which, str]] = {"agent": "0002", "console": "0004"}
"""Newest revision of each; a test compares them with Alembic's own view of the scripts."""


def upgrade(which: Which, connection: Connection) -> None:
    """Bring the schema behind *connection* to its head, in that connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / which))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
