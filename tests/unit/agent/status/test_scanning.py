"""A scan over the status socket: its steps, its end, and who leaves before it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.agent.status.conftest import Box, Caller, Dial, Serve

from nexus_agent.plugin import PluginError


async def step(caller: Caller) -> Any:
    """The next line of the chunked answer."""
    size = int(await caller.line(), 16)
    line = await caller.line()
    assert len(line) == size
    assert await caller.line() == b"\r\n"
    return json.loads(line)


async def test_a_scan_tells_its_steps_and_then_what_it_found(
    serve: Serve, dial: Dial, box: Box
) -> None:
    await serve()
    caller = await dial()
    caller.get("/v1/scan?phase=pre&adapter=left", method="POST")
    head = await caller.head()

    assert await step(caller) == {"progress": "reading the VIN"}
    box.scanned.set()
    assert await step(caller) == {"scan": {"modules": []}}
    assert await caller.rest() == b"0\r\n\r\n"
    assert head.startswith(b"HTTP/1.1 200")
    assert box.scans == [{"phase": "pre", "adapter": "left"}]


async def test_a_scan_that_fails_says_why_in_its_last_line(
    serve: Serve, dial: Dial, box: Box
) -> None:
    await serve()
    box.scan_error = PluginError("obd: the adapter is gone")
    box.scanned.set()
    caller = await dial()
    caller.get("/v1/scan", method="POST")
    await caller.head()

    await step(caller)
    assert await step(caller) == {"error": "obd: the adapter is gone"}


async def test_who_leaves_ends_the_scan(serve: Serve, dial: Dial, box: Box) -> None:
    await serve()
    caller = await dial()
    caller.get("/v1/scan", method="POST")
    await caller.head()
    await step(caller)

    caller.writer.close()

    async with asyncio.timeout(5):
        await box.scan_left()


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/v1/scan?phase=mid", "phase is pre or post"),
        ("/v1/scan?deep=1", "unknown parameter 'deep'"),
    ],
)
async def test_a_scan_that_cannot_be_is_refused(
    serve: Serve, dial: Dial, box: Box, target: str, why: str
) -> None:
    await serve()
    caller = await dial()
    caller.get(target, "Connection: close", method="POST")

    answer = await caller.rest()

    assert answer.startswith(b"HTTP/1.1 400")
    assert why in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert box.scans == []


async def test_a_scan_is_not_read(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()
    caller.get("/v1/scan", "Connection: close")

    answer = await caller.rest()

    assert answer.startswith(b"HTTP/1.1 405")
    assert b"Allow: POST" in answer
