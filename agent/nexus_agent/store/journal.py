"""The command journal: what was asked of this box, and what became of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import orjson

from nexus_agent.protocol import Command, CommandResult, CommandState, parse_time
from nexus_agent.store.database import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """One command as the journal has it; result is set once the state is terminal."""

    command: Command
    state: CommandState
    result: CommandResult | None


class Journal:
    """Reads entries, and makes the writes that ride in the transaction of a result's event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, identity: str) -> Entry | None:
        """The entry of a command's id, if it ever arrived."""
        rows = await self._database.read(
            "SELECT document, state, result FROM command WHERE id=?", (identity,)
        )
        return _entry(rows[0]) if rows else None

    async def unfinished(self) -> list[Entry]:
        """Commands that a stop of the agent left without an end, in order of their arrival."""
        rows = await self._database.read(
            "SELECT document, state, result FROM command "
            "WHERE state IN ('accepted', 'running') ORDER BY received, counter"
        )
        return [_entry(row) for row in rows]


def record(command: Command, received: int, connection: sqlite3.Connection) -> None:
    """Journal an accepted command. received: wall time, ns."""
    connection.execute(
        "INSERT OR IGNORE INTO command (id, counter, name, document, expires, state, received) "
        "VALUES (?,?,?,?,?,?,?)",
        (
            command.id,
            command.counter,
            command.name,
            command.encode().decode(),
            parse_time(command.expires),
            CommandState.ACCEPTED,
            received,
        ),
    )


def start(identity: str, connection: sqlite3.Connection) -> None:
    """Note that a command is about to act."""
    connection.execute("UPDATE command SET state=? WHERE id=?", (CommandState.RUNNING, identity))


def finish(result: CommandResult, finished: int, connection: sqlite3.Connection) -> None:
    """Store a terminal result, once: a second one changes nothing. finished: wall time, ns."""
    connection.execute(
        "UPDATE command SET state=?, finished=?, result=? "
        "WHERE id=? AND state IN ('accepted', 'running')",
        (result.state, finished, result.model_dump_json(exclude_none=True), result.id),
    )


def _entry(row: tuple[str, str, str | None]) -> Entry:
    document, state, result = row
    return Entry(
        command=Command.model_validate_json(document),
        state=CommandState(state),
        result=None if result is None else CommandResult.read(orjson.loads(result)),
    )
