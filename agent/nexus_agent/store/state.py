"""Plugins' small state: JSON values by plugin and key."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy.orm import Session

from nexus_agent.protocol import ProtocolError
from nexus_agent.store.database import Database
from nexus_agent.store.models import StateRow


class PluginState:
    """The `State` of one plugin (see `nexus_agent.plugin.State`)."""

    def __init__(self, database: Database, plugin: str) -> None:
        self._database = database
        self._plugin = plugin

    async def get(self, key: str) -> Any:
        rows = await self._database.read(
            "SELECT value FROM plugin_state WHERE plugin=? AND key=?", (self._plugin, key)
        )
        return orjson.loads(rows[0][0]) if rows else None

    async def set(self, key: str, value: Any) -> None:
        try:
            text = orjson.dumps(value).decode()
        except TypeError as error:
            raise ProtocolError(f"state {self._plugin}.{key}: not JSON: {error}") from None

        if value is None:
            await self._database.session(lambda s: _delete(s, self._plugin, key))
        else:
            row = StateRow(plugin=self._plugin, key=key, value=text)
            await self._database.session(lambda s: s.merge(row))


def _delete(session: Session, plugin: str, key: str) -> None:
    row = session.get(StateRow, (plugin, key))
    if row is not None:
        session.delete(row)
