"""Giving a box a command, and seeing what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, HTTPException, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from nexus_agent.protocol import check_event_type, format_time
from nexus_console import commands
from nexus_console.api.access import DeviceDep, ServicesDep, UserDep
from nexus_console.ingest import now_ns
from nexus_console.live import COMMANDS

router = APIRouter(tags=["commands"])

MAX_ARGS_BYTES: Final = 64 * 1024
CommandName = Annotated[str, Field(max_length=128), AfterValidator(check_event_type)]
"""Spelled like an event type: `obd.scan`."""


class NewCommand(BaseModel):
    """expires_in_s: how long the box may take to accept it, 1 second to 7 days."""

    model_config = ConfigDict(extra="forbid")

    name: CommandName
    args: dict[str, Any] = Field(default_factory=dict)
    expires_in_s: int = Field(default=300, ge=1, le=7 * 86_400)


class Command(BaseModel):
    id: str
    name: str
    args: dict[str, Any]
    state: Literal["queued", "accepted", "running", "succeeded", "failed", "rejected", "expired"]
    progress: str | None
    result: Any
    error: str | None
    created: str
    expires: str
    updated: str
    created_by: str


class CommandList(BaseModel):
    commands: list[Command]


@router.get("/devices/{device}/commands")
def list_commands(
    device: DeviceDep, services: ServicesDep, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> CommandList:
    """The newest commands of a box, the newest first."""
    with services.database.read() as connection:
        rows = commands.newest(connection, device.id, limit)
    return CommandList(commands=[_shown(row) for row in rows])


@router.post("/devices/{device}/commands", status_code=202)
def create_command(
    device: DeviceDep, body: NewCommand, services: ServicesDep, user: UserDep
) -> Command:
    """Queue a command. It is sent now, or when the broker or the box is back in time."""
    if not user.role.commands:
        raise HTTPException(
            403, f"Your role is {user.role}; giving commands needs operator or admin."
        )
    if len(orjson.dumps(body.args)) > MAX_ARGS_BYTES:
        raise HTTPException(422, f"args: at most {MAX_ARGS_BYTES} bytes of JSON are taken.")
    now = now_ns()
    with services.database.write() as connection:
        row = commands.create(
            connection,
            device,
            name=body.name,
            args=body.args,
            expires=now + body.expires_in_s * 1_000_000_000,
            user=user.name,
            now=now,
        )
    services.dispatcher.publish(device.name, row)
    services.live.tell({(device.name, COMMANDS)})
    return _shown(row)


@router.get("/devices/{device}/commands/{command}")
def show_command(device: DeviceDep, command: str, services: ServicesDep) -> Command:
    """What became of a command."""
    with services.database.read() as connection:
        row = commands.find(connection, device.id, command)
    if row is None:
        raise HTTPException(404, f"Device {device.name!r} has no command {command!r}.")
    return _shown(row)


def _shown(row: Row[Any]) -> Command:
    return Command(
        id=row.id,
        name=row.name,
        args=orjson.loads(row.args),
        state=row.state,
        progress=row.progress,
        result=None if row.result is None else orjson.loads(row.result),
        error=row.error,
        created=format_time(row.created),
        expires=format_time(row.expires),
        updated=format_time(row.updated),
        created_by=row.created_by,
    )
