"""Plugins' small state: JSON values by plugin and key."""

from __future__ import annotations

import json
import sqlite3
from functools import partial
from typing import Any, Final

import orjson

from nexus_agent.plugin import StateError
from nexus_agent.store.database import Database

QUOTA_BYTES: Final = 1024 * 1024
"""Keys and values of one plugin, as JSON text, take at most so much."""
KEY_CHARACTERS: Final = 200

_USED: Final = (
    "SELECT total(length(CAST(key AS BLOB)) + length(CAST(value AS BLOB))) "
    "FROM plugin_state WHERE plugin=? AND key<>?"
)


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
        text = encode(self._plugin, key, value)
        await self._database.run(partial(put, self._plugin, key, text))


def encode(plugin: str, key: str, value: Any) -> str | None:
    """*value* as JSON text, None for None. Raises StateError for a key or value that cannot be."""
    if not 0 < len(key) <= KEY_CHARACTERS:
        raise StateError(f"state {plugin}: a key has 1 to {KEY_CHARACTERS} characters")
    if value is None:
        return None
    try:
        text = orjson.dumps(value).decode()
        # orjson takes more than JSON has, and writes NaN and infinity as null.
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StateError(f"state {plugin}.{key}: not JSON: {error}") from None
    return text


def check_quota(plugin: str, key: str, text: str, others: int) -> None:
    """Raise StateError if *text* is too much beside the *others* bytes of the plugin's keys."""
    wanted = others + len(key.encode()) + len(text.encode())
    if wanted > QUOTA_BYTES:
        raise StateError(
            f"state {plugin}.{key}: with it the plugin would keep {wanted} bytes, "
            f"at most {QUOTA_BYTES} are kept: delete keys by setting them to None"
        )


def put(plugin: str, key: str, text: str | None, connection: sqlite3.Connection) -> None:
    """Write the JSON *text* in the transaction that is open; None deletes the key.

    Raises StateError where it would take the plugin above its quota.
    """
    if text is None:
        connection.execute("DELETE FROM plugin_state WHERE plugin=? AND key=?", (plugin, key))
        return
    ((others,),) = connection.execute(_USED, (plugin, key))
    check_quota(plugin, key, text, int(others))
    connection.execute("INSERT OR REPLACE INTO plugin_state VALUES (?,?,?)", (plugin, key, text))
