"""What endpoints work with, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from fastapi import Depends, HTTPException, Path, Request
from sqlalchemy import Row, select

from nexus_console.auth import Accounts, Attempts, User
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import devices, vehicles
from nexus_console.dispatch import Dispatcher
from nexus_console.ingest import Writer
from nexus_console.live import Live
from nexus_console.mqtt import Link

COOKIE: Final = "nexus_session"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the composition root hands to the API."""

    database: Database
    accounts: Accounts
    attempts: Attempts
    link: Link
    writer: Writer
    dispatcher: Dispatcher
    live: Live
    retention: RetentionSettings


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(_services)]


def token_of(request: Request) -> str | None:
    """The bearer token, or else the session cookie (RFC 6750 section 2.1)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.cookies.get(COOKIE)


def _user(request: Request, services: ServicesDep) -> User:
    token = token_of(request)
    user = None if token is None else services.accounts.user_of(token)
    if user is None:
        raise HTTPException(
            401, "Log in first: POST /api/v1/login.", headers={"WWW-Authenticate": "Bearer"}
        )
    return user


UserDep = Annotated[User, Depends(_user)]


def _device(
    device: Annotated[str, Path(max_length=63)], services: ServicesDep, _user: UserDep
) -> Row[Any]:
    with services.database.read() as connection:
        row = connection.execute(select(devices).where(devices.c.name == device)).one_or_none()
    if row is None:
        raise HTTPException(404, f"There is no device {device!r}.")
    return row


DeviceDep = Annotated[Row[Any], Depends(_device)]


def _vehicle(
    vehicle: Annotated[str, Path(max_length=64)], services: ServicesDep, _user: UserDep
) -> Row[Any]:
    with services.database.read() as connection:
        row = connection.execute(select(vehicles).where(vehicles.c.ref == vehicle)).one_or_none()
    if row is None:
        raise HTTPException(404, f"There is no vehicle {vehicle!r}.")
    return row


VehicleDep = Annotated[Row[Any], Depends(_vehicle)]
