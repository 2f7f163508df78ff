"""Server-sent events (WHATWG HTML, section 9.2): which boxes have changed, as it happens."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

import anyio.to_thread
import orjson
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from nexus_console.api.access import Services, ServicesDep, UserDep, token_of
from nexus_console.live import Watcher

router = APIRouter(tags=["live"])

BEAT_S: Final = 10.0
"""A word at least this often, so that either side notices when the other is gone."""
GATHER_S: Final = 0.1
"""Changes are told at most this often; the first of them at once."""


@router.get("/live", response_class=StreamingResponse)
async def watch(request: Request, services: ServicesDep, _user: UserDep) -> StreamingResponse:
    """A stream of `change` events: `{"devices": {"bay-1": ["event", "presence"]}}`.

    A box's list names its streams in which events have arrived, `presence` and `commands`. `hello`
    comes first and `beat` every 10 s; `bye` when the log-in has ended. Nothing is replayed: ask
    the API for what matters after each `hello`.
    """
    if services.live.full:
        raise HTTPException(503, "Too many pages are watching this console; try again shortly.")
    token = token_of(request)
    return StreamingResponse(
        _stream(services, "" if token is None else token),
        media_type="text/event-stream",
        # A reverse proxy that gathers the stream would make it late.
        headers={"X-Accel-Buffering": "no"},
    )


async def _stream(services: Services, token: str) -> AsyncIterator[bytes]:
    with services.live.watching() as watcher:
        yield _message("hello", {})
        async for message in _messages(services, watcher, token):
            yield message


async def _messages(services: Services, watcher: Watcher, token: str) -> AsyncIterator[bytes]:
    beat = time.monotonic() + BEAT_S
    while not services.live.closed:
        changes = await watcher.wait(max(0.0, beat - time.monotonic()))
        if changes:
            yield _message("change", {"devices": changes})
            await anyio.sleep(GATHER_S)
        if time.monotonic() >= beat:
            if not await _still_logged_in(services, token):
                yield _message("bye", {})
                return
            yield _message("beat", {})
            beat = time.monotonic() + BEAT_S


async def _still_logged_in(services: Services, token: str) -> bool:
    try:
        return await anyio.to_thread.run_sync(services.accounts.user_of, token) is not None
    except SQLAlchemyError:
        return True  # nobody knows at the moment; the next beat asks again


def _message(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
