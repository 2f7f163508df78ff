"""Logging in and out."""

from __future__ import annotations

import math

import anyio
import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field

from nexus_agent.protocol import format_time
from nexus_console.api.access import COOKIE, ServicesDep, token_of
from nexus_console.auth import MAX_PASSWORD, TOKEN_LIFE_NS, Role

router = APIRouter(tags=["login"])

# An Argon2id hash takes 64 MiB: a crowd of log-ins queues up rather than fill the memory.
_hashing = anyio.CapacityLimiter(2)


class Credentials(BaseModel):
    username: str = Field(max_length=64)
    password: str = Field(max_length=MAX_PASSWORD)


class Session(BaseModel):
    """Who this request is logged in as; both are null for nobody."""

    user: str | None
    role: Role | None


class LoggedIn(BaseModel):
    token: str
    role: Role
    expires: str


@router.post("/login")
async def log_in(
    body: Credentials, request: Request, response: Response, services: ServicesDep
) -> LoggedIn:
    """A token for 12 hours, as a bearer token and as a cookie for the page."""
    address = request.client.host if request.client else "unknown"
    wait_s = services.attempts.admit(body.username, address)
    if wait_s:
        raise HTTPException(
            429,
            f"Too many failed log-ins; try again in {math.ceil(wait_s / 60)} min.",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )
    token = await anyio.to_thread.run_sync(
        services.accounts.log_in, body.username, body.password, limiter=_hashing
    )
    if token is None:
        raise HTTPException(401, "User name or password is wrong.")
    services.attempts.succeeded(body.username, address)
    response.set_cookie(
        COOKIE,
        token.text,
        max_age=TOKEN_LIFE_NS // 1_000_000_000,
        path="/api",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return LoggedIn(token=token.text, role=token.role, expires=format_time(token.expires))


@router.get("/session")
def show_session(request: Request, services: ServicesDep) -> Session:
    """Who is asking, with no error for nobody: the page asks before it shows anything."""
    token = token_of(request)
    user = None if token is None else services.accounts.user_of(token)
    return Session(user=user and user.name, role=user and user.role)


@router.post("/logout", status_code=204)
def log_out(request: Request, response: Response, services: ServicesDep) -> None:
    """End the log-in that this request comes with."""
    token = token_of(request)
    if token is not None:
        services.accounts.log_out(token)
    response.delete_cookie(COOKIE, path="/api")
