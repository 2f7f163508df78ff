"""Commands to boxes: made here, published until taken or too late, moved on by their results."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, insert, select, update

from nexus_agent.protocol import (
    Command,
    CommandResult,
    CommandState,
    ProtocolError,
    Signed,
    format_time,
)
from nexus_console.db.engine import storable
from nexus_console.db.models import commands, devices

QUEUED: Final = "queued"
"""Made and perhaps published, but no word of it from the box yet."""

_BEFORE: Final = {
    CommandState.ACCEPTED: (QUEUED,),
    CommandState.RUNNING: (QUEUED, CommandState.ACCEPTED, CommandState.RUNNING),
}
_NOT_TERMINAL: Final = (QUEUED, CommandState.ACCEPTED, CommandState.RUNNING)


def create(
    connection: Connection,
    device: Row[Any],
    *,
    name: str,
    args: dict[str, Any],
    expires: int,
    user: str,
    now: int,
) -> Row[Any]:
    """Store a new command for *device* with the next counter, and return its row.

    The name must be one that `protocol.Command` takes; ValidationError otherwise.
    """
    counter = connection.execute(
        update(devices)
        .where(devices.c.id == device.id)
        .values(command_counter=devices.c.command_counter + 1)
        .returning(devices.c.command_counter)
    ).scalar_one()
    command = Command(
        id=str(uuid.uuid4()),
        device=device.name,
        counter=counter,
        not_before=format_time(now),
        expires=format_time(expires),
        name=name,
        args=args,
    )
    connection.execute(
        insert(commands).values(
            id=command.id,
            device_id=device.id,
            counter=counter,
            name=name,
            args=orjson.dumps(args).decode(),
            state=QUEUED,
            created=now,
            expires=expires,
            updated=now,
            created_by=user,
            envelope=Signed(document=command.encode().decode()).encode().decode(),
        )
    )
    return connection.execute(select(commands).where(commands.c.id == command.id)).one()


def find(connection: Connection, device_id: int, command_id: str) -> Row[Any] | None:
    return connection.execute(
        select(commands).filter_by(id=command_id, device_id=device_id)
    ).one_or_none()


def newest(connection: Connection, device_id: int, limit: int) -> list[Row[Any]]:
    """The last *limit* commands of a device, the newest first."""
    return list(
        connection.execute(
            select(commands)
            .filter_by(device_id=device_id)
            .order_by(commands.c.counter.desc())
            .limit(limit)
        ).all()
    )


def queued(connection: Connection, now: int, only: Collection[str] | None = None) -> list[Row[Any]]:
    """Commands that no box has taken and that are still in time, oldest first, with `device`.

    only: names of the devices wanted; None for all.
    """
    statement = (
        select(commands, devices.c.name.label("device"))
        .join(devices, devices.c.id == commands.c.device_id)
        .where(commands.c.state == QUEUED, commands.c.expires > now)
        .order_by(commands.c.device_id, commands.c.counter)
    )
    if only is not None:
        statement = statement.where(devices.c.name.in_(only))
    return list(connection.execute(statement).all())


def overdue(connection: Connection, now: int) -> bool:
    """Whether `expire` would have anything to do."""
    return connection.execute(_overdue(now).limit(1)).first() is not None


def expire(connection: Connection, now: int) -> list[str]:
    """End what no box has taken in time; the ids of these commands."""
    ids = list(connection.execute(_overdue(now)).scalars())
    connection.execute(
        update(commands)
        .where(commands.c.id.in_(ids), commands.c.state == QUEUED)
        .values(
            state=CommandState.EXPIRED,
            error="the box sent no word of it before it expired",
            updated=now,
        )
    )
    return ids


def apply_result(connection: Connection, device_id: int, data: Any, now: int) -> str | None:
    """Move a command on by the data of a `command.result` event; terminal states never change.

    Returns why *data* was left aside, or None. Results may come twice and out of order.
    """
    try:
        result = CommandResult.read(data)
    except ProtocolError as error:
        return str(error)
    values: dict[str, Any] = {"state": result.state, "updated": now}
    if result.progress is not None:
        values["progress"] = storable(result.progress)
    if result.state.terminal:
        values["result"] = orjson.dumps(result.result).decode()
        values["error"] = None if result.error is None else storable(result.error)
    moved = connection.execute(
        update(commands)
        .where(
            commands.c.id == result.id,
            commands.c.device_id == device_id,
            commands.c.state.in_(_BEFORE.get(result.state, _NOT_TERMINAL)),
        )
        .values(values)
    )
    return None if moved.rowcount else f"command {result.id!r} is unknown or past {result.state}"


def _overdue(now: int) -> Any:
    return select(commands.c.id).where(commands.c.state == QUEUED, commands.c.expires <= now)
