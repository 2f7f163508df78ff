"""Schema migrations of the two databases: `agent` and `console`.

Alembic costs memory and time to import, so `upgrade` is called only by those who have seen in
`alembic_version` that the schema is not at `HEADS[which]`.

Each migration of the agent states as `compatible_from` the oldest revision whose code can run on
the schema that it leaves. `upgrade` writes it into the database, as `PRAGMA user_version`, for code
that is older than the schema: an agent that was rolled back finds there whether it may go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from sqlalchemy import Connection

Which = Literal["agent", "console"]

HEADS: Final[dict[Which, str]] = {"agent": "0002", "console": "0005"}
"""Newest revision of each; a test compares them with Alembic's own view of the scripts."""


def upgrade(which: Which, connection: Connection) -> None:
    """Bring the schema behind *connection* to its head, in that connection's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / which))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if which == "agent":
        head = next(ScriptDirectory.from_config(config).walk_revisions())
        # In the same transaction: it is kept in the file's header, which is a page as all are.
        connection.exec_driver_sql(f"PRAGMA user_version={int(head.module.compatible_from)}")
