"""Clients of the two doors that the demo looks through: the console's API and a box's socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from nexus_demo.waiting import DemoError, NotYet, until

PAGE: Final = 1000
"""Events asked for at once; the console's own limit."""

_FINAL: Final = frozenset({"succeeded", "failed", "rejected", "expired"})
_TIMEOUT_S: Final = 10.0


class Console:
    """The console's `/api/v1`, as one user, who signs in again when the token has run out."""

    def __init__(self, http: httpx.AsyncClient, user: str, password: str) -> None:
        self._http = http
        self._login = {"username": user, "password": password}

    async def devices(self) -> dict[str, Any]:
        """Every device by its id."""
        answer = await self._get("/devices")
        return {device["id"]: device for device in answer["devices"]}

    async def device(self, device: str) -> Any:
        return await self._get(f"/devices/{device}")

    async def delivery(self, device: str) -> list[Any]:
        """One object for each epoch and stream."""
        streams: list[Any] = (await self._get(f"/devices/{device}/delivery"))["streams"]
        return streams

    async def series(self, device: str, name: str, newest: int = PAGE) -> list[Any]:
        """The newest live values called *name*, one object for each control unit."""
        query = {"type": "telemetry.pid", "name": name, "limit": newest}
        series: list[Any] = (await self._get(f"/devices/{device}/series", query))["series"]
        return series

    async def events(self, device: str, event_type: str | None = None) -> list[Any]:
        """Every event of a device, oldest first, page by page to the end."""
        found: list[Any] = []
        query: dict[str, Any] = {"limit": PAGE}
        if event_type is not None:
            query["type"] = event_type
        while True:
            page = await self._get(f"/devices/{device}/events", query)
            found += page["events"]
            if len(page["events"]) < PAGE:
                return found
            query["after"] = page["next"]

    async def do(self, device: str, command: str, within: float = 30.0) -> Any:
        """Give a command and return it once it is over, whatever came of it."""
        path = f"/devices/{device}/commands"
        given = await self._call("POST", path, json={"name": command, "args": {}})
        path += f"/{given['id']}"

        async def over() -> Any:
            state = await self._get(path)
            if state["state"] not in _FINAL:
                raise NotYet(f"it is {state['state']}")
            return state

        return await until(f"{command} on {device} ends", over, within=within)

    async def sign_in(self) -> None:
        token = _json(await self._send("POST", "/login", json=self._login))["token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    async def _get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return await self._call("GET", path, params=query)

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = await self._send(method, path, **options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            await self.sign_in()
            answer = await self._send(method, path, **options)
        return _json(answer)

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise DemoError(f"{method} {path}: {type(error).__name__}: {error}") from None


@asynccontextmanager
async def signed_in(address: str, user: str, password: str) -> AsyncIterator[Console]:
    """The console at *address* (`http://host:port`) for the length of a block."""
    async with httpx.AsyncClient(
        base_url=f"{address}/api/v1", timeout=_TIMEOUT_S, trust_env=False
    ) as http:
        console = Console(http, user, password)
        await console.sign_in()
        yield console


async def health(address: str) -> Any:
    """The console's `/healthz`; NotYet while it does not answer."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
        try:
            answer = await http.get(f"{address}/healthz")
        except httpx.TransportError as error:
            raise NotYet(f"{type(error).__name__}: {error}") from None
        # A console that is up but not well says so with 503 and the same document.
        return answer.json()


async def box(socket: Path, path: str) -> Any:
    """What a box's agent says at *path*, such as `/v1/outbox`; NotYet while it does not answer."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://box", timeout=5) as http:
        try:
            return _json(await http.get(path))
        except httpx.TransportError as error:
            raise NotYet(f"{type(error).__name__}: {error}") from None


def _json(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json()
    raise DemoError(
        f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}"
    )
