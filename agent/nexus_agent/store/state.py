"""Plugins' small state: JSON values by plugin and key."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from typing import Any

import orjson

from nexus_agent.protocol import ProtocolError
from nexus_agent.store.database import Database


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
            # orjson takes more than JSON has, and writes NaN and infinity as null.
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"state {self._plugin}.{key}: not JSON: {error}") from None
        await self._database.run(partial(put, self._plugin, key, None if value is None else text))


def put(plugin: str, key: str, text: str | None, connection: sqlite3.Connection) -> None:
    """Write the JSON *text* in the transaction that is open; None deletes the key."""
    if text is None:
        connection.execute("DELETE FROM plugin_state WHERE plugin=? AND key=?", (plugin, key))
    else:
        connection.execute(
            "INSERT OR REPLACE INTO plugin_state VALUES (?,?,?)", (plugin, key, text)
        )
