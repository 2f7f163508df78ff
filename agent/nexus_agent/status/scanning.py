"""`POST /v1/scan`: a scan for who stands at the box, with its steps as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import orjson

from nexus_agent.plugin import PluginError, Progress
from nexus_agent.status.source import QueryError

PATH: Final = "/v1/scan"
PHASES: Final = ("pre", "post")

Scan = Callable[[Mapping[str, Any], Progress], Awaitable[Any]]
"""Scans with what `phase` and `adapter` say. Raises PluginError, with words for the technician."""


def arguments(query: Mapping[str, str]) -> dict[str, str]:
    """What a request asks for. Raises QueryError."""
    for key in query:
        if key not in {"phase", "adapter"}:
            raise QueryError(f"unknown parameter {key!r}; known here: phase, adapter")
    if query.get("phase", PHASES[0]) not in PHASES:
        raise QueryError(f"phase is {' or '.join(PHASES)}, not {query['phase']!r}")
    return dict(query)


@asynccontextmanager
async def steps(scan: Scan, given: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
    """`{"progress": text}` a line, and at last `{"scan": …}` or `{"error": text}`.

    Who leaves before the end ends the scan.
    """
    said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def work() -> None:
        try:
            found = await scan(given, lambda text: said.put_nowait({"progress": text}))
        except PluginError as error:
            said.put_nowait({"error": str(error)})
        else:
            said.put_nowait({"scan": found})
        said.put_nowait(None)

    async def lines() -> AsyncGenerator[bytes, None]:
        while (step := await said.get()) is not None:
            yield orjson.dumps(step) + b"\n"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work(), name="status:scan")
        async with aclosing(lines()) as following:
            yield following
        task.cancel()
