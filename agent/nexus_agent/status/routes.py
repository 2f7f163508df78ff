"""The paths of the status socket: what each takes and what it answers."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from nexus_agent.protocol import ProtocolError, Stream, check_event_type
from nexus_agent.status import scanning
from nexus_agent.status.connection import Lines, Reply, Request, failure
from nexus_agent.status.source import Control, PluginAction, QueryError, Source

NDJSON: Final = "application/x-ndjson"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus exposition formats, text-based format 0.0.4."""

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_MAX_PARAMETERS: Final = 16
_CHANGE: Final = re.compile(rf"/v1/plugins/([^/]+)/({'|'.join(PluginAction)})")

_ERASE: Final = "/v1/erase"
_POSTED: Final = (_ERASE, scanning.PATH)

Query = dict[str, str]
Answer = Reply | Lines
Route = Callable[[Source, Query], Awaitable[Answer]]


async def answer(
    source: Source, request: Request, routes: Mapping[str, Route] | None = None
) -> Answer:
    """Answer a request for one of *routes*, of all of them if None.

    Raises what *source* raises, and QueryError for wrong parameters.
    """
    known = ROUTES if routes is None else routes
    path, query = _split(request.target)
    if routes is None and (path in _POSTED or _CHANGE.fullmatch(path) is not None):
        reply = failure(405, f"{path} takes POST only")
        return Reply(reply.status, reply.body, headers=(("Allow", "POST"),))
    route = known.get(path)
    if route is None:
        return failure(404, f"there is nothing at {path!r}; known: {', '.join(known)}")
    if request.method not in {"GET", "HEAD"}:
        reply = failure(405, f"{request.method} is not possible here: {path} can only be read")
        return Reply(reply.status, reply.body, headers=(("Allow", "GET, HEAD"),))
    return await route(source, query)


def scan(scans: scanning.Scan, request: Request) -> Answer | None:
    """The answer to a POST that asks for a scan; None if it asks for something else."""
    path, query = _split(request.target)
    if path != scanning.PATH:
        return None
    return Lines(NDJSON, scanning.steps(scans, scanning.arguments(query)))


async def change(control: Control, request: Request, by: str) -> Answer:
    """Do what a POST asks for; *by* says to others who that was. Raises as `answer` does."""
    path, query = _split(request.target)
    if path == _ERASE:
        _check(query, "vin")
        return Lines(NDJSON, _steps(control.erase(query.get("vin", ""), by)))
    _check(query)
    if (wanted := _CHANGE.fullmatch(path)) is None:
        if path not in ROUTES:
            return failure(404, f"there is nothing at {path!r}; known: {', '.join(ROUTES)}")
        reply = failure(405, f"{request.method} is not possible here: {path} can only be read")
        return Reply(reply.status, reply.body, headers=(("Allow", "GET, HEAD"),))
    return _json(await control.change_plugin(wanted[1], PluginAction(wanted[2]), by))


def _split(target: str) -> tuple[str, Query]:
    """Path and parameters of a request target, which may be absolute (RFC 9112 section 3.2)."""
    try:
        if target.startswith("/"):
            path, _, query = target.partition("?")
        else:
            parts = urlsplit(target)
            path, query = parts.path, parts.query
        pairs = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError as error:
        raise QueryError(f"the address does not parse: {error}") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise QueryError("a parameter is given twice")
    return path, found


def _json(document: dict[str, Any]) -> Reply:
    return Reply(200, orjson.dumps(document) + b"\n")


def _check(query: Query, *known: str) -> None:
    for key in query:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise QueryError(f"unknown parameter {key!r}; known here: {takes}")


async def _status(source: Source, query: Query) -> Reply:
    _check(query)
    return _json(await source.status())


async def _plugins(source: Source, query: Query) -> Reply:
    _check(query)
    return _json(source.plugins())


async def _outbox(source: Source, query: Query) -> Reply:
    _check(query)
    return _json(await source.outbox())


async def _metrics(source: Source, query: Query) -> Reply:
    _check(query)
    return Reply(200, (await source.metrics()).encode(), METRICS)


async def _events(source: Source, query: Query) -> Answer:
    _check(query, "type", "stream", "after", "limit", "follow")
    event_type, stream = _event_type(query), _stream(query)
    after, limit = query.get("after"), _limit(query)
    follow = query.get("follow", "0")
    if follow not in {"0", "1"}:
        raise QueryError(f"follow is 0 or 1, not {follow!r}")
    if follow == "1":
        return Lines(NDJSON, _follow(source, event_type, stream, after, limit))
    return _json(
        await source.events(
            after=after, limit=limit or DEFAULT_LIMIT, event_type=event_type, stream=stream
        )
    )


@asynccontextmanager
async def _steps(
    steps: AsyncGenerator[dict[str, Any], None],
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Documents as lines. The first is made before the answer begins: what it raises is told."""

    async def lines() -> AsyncGenerator[bytes, None]:
        yield orjson.dumps(first) + b"\n"
        async for step in steps:
            yield orjson.dumps(step) + b"\n"

    async with aclosing(steps), aclosing(lines()) as following:
        first = await anext(steps)
        yield following


ROUTES: Final[dict[str, Route]] = {
    "/v1/status": _status,
    "/v1/plugins": _plugins,
    "/v1/outbox": _outbox,
    "/v1/events": _events,
    "/metrics": _metrics,
}
METRICS_ONLY: Final[dict[str, Route]] = {"/metrics": _metrics}
"""What may be asked where nobody is known."""


def _event_type(query: Query) -> str | None:
    try:
        return check_event_type(query["type"]) if "type" in query else None
    except ProtocolError as error:
        raise QueryError(str(error)) from None


def _stream(query: Query) -> Stream | None:
    try:
        return Stream(query["stream"]) if "stream" in query else None
    except ValueError:
        known = ", ".join(Stream)
        raise QueryError(f"stream is one of {known}, not {query['stream']!r}") from None


def _limit(query: Query) -> int | None:
    text = query.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MAX_LIMIT):
        raise QueryError(f"limit is a number from 1 to {MAX_LIMIT}, not {text!r}")
    return int(text)


@asynccontextmanager
async def _follow(
    source: Source,
    event_type: str | None,
    stream: Stream | None,
    after: str | None,
    limit: int | None,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Events as lines: with *after* all since then, else the newest *limit*, then what comes.

    Without either it begins with what comes. The live events are opened first and those that the
    history told already are left out, so that none is missed and none comes twice.
    """

    async def page(cursor: str | None) -> dict[str, Any]:
        return await source.events(
            after=cursor, limit=limit or DEFAULT_LIMIT, event_type=event_type, stream=stream
        )

    async def lines(first: dict[str, Any] | None) -> AsyncGenerator[bytes, None]:
        told: dict[tuple[int, str], int] = {}
        current = first
        while current is not None and current["events"]:
            for event in current["events"]:
                told[event["epoch"], event["stream"]] = event["seq"]
                yield orjson.dumps(event) + b"\n"
            current = await page(current["next"]) if after is not None else None
        async for event in live:
            if event["seq"] > told.get((event["epoch"], event["stream"]), 0):
                yield orjson.dumps(event) + b"\n"

    async with source.follow(event_type=event_type, stream=stream) as live:
        history = None if after is None and limit is None else await page(after)
        async with aclosing(lines(history)) as following:
            yield following
