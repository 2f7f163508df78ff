"""What can go wrong with the agent's database, by what can be done about it."""

from __future__ import annotations

import sqlite3
from typing import Final

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


_GONE: Final = ("no such table", "no such column", "has no column named")
"""What SQLite says where a damaged schema still reads as one: our statements never change."""

SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What Python's sqlite3 raises. It fails to decode a message in which SQLite repeats bytes of a
damaged schema, and raises that instead."""


class StoreError(Exception):
    """The database did not do what was asked; the transaction left no trace."""


class FullError(StoreError):
    """There is no room: on the disk, or within the quota."""


class DamagedError(StoreError):
    """The file is no sound SQLite database any more: it has to be salvaged."""


class SchemaError(StoreError):
    """The file is of another version of the agent: a person has to decide."""


def store_error(error: sqlite3.Error | UnicodeDecodeError, where: object) -> StoreError:
    """The StoreError that tells of *error* in the file *where*."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError(f"{where}: {error.object.decode(errors='replace')}")
    # The primary result code is the low byte of an extended one (sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGED or (code == sqlite3.SQLITE_ERROR and any(g in str(error) for g in _GONE)):
        return DamagedError(f"{where}: {error}")
    if code == sqlite3.SQLITE_FULL:
        return FullError(f"{where}: {error}")
    return StoreError(f"{where}: {error}")
