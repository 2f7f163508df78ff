"""`/v1/events`: the local history, and following what comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.agent.status.conftest import Box, Caller, Dial, Serve

from nexus_agent.protocol import Stream
from nexus_agent.status.source import UnavailableError


def document(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_history_is_filtered_and_paged(serve: Serve, dial: Dial, box: Box) -> None:
    await serve()
    for value in range(3):
        await box.commit("telemetry.pid", value, stream=Stream.TELEMETRY)
        await box.commit("dtc.observed", value)
    caller = await dial()

    caller.get("/v1/events?type=dtc.observed&stream=event&after=2&limit=1", "Connection: close")

    page = document(await caller.rest())
    assert [event["seq"] for event in page["events"]] == [4]
    assert page["next"] == "4"


async def read_line(caller: Caller) -> Any:
    """One chunk (RFC 9112 section 7.1) that holds one JSON line."""
    size = int(await caller.line(), 16)
    line = await caller.line()
    assert len(line) == size
    assert await caller.line() == b"\r\n"
    return json.loads(line)


async def test_a_follower_gets_each_event_as_it_comes(serve: Serve, dial: Dial, box: Box) -> None:
    await serve()
    await box.commit("dtc.observed", "before")
    caller = await dial()
    caller.get("/v1/events?follow=1&type=dtc.observed")
    head = await caller.head()
    await box.followed(1)

    for data in ("one", "two"):
        await box.commit("dtc.observed", data)
        await box.commit("plugin.state", data)
        assert (await read_line(caller))["data"] == data

    assert b"application/x-ndjson" in head


@pytest.mark.parametrize(
    ("query", "first"), [("limit=2", 4), ("after=1", 2), ("after=1&limit=1", 2), ("after=", 1)]
)
async def test_a_follower_may_begin_in_the_past_and_misses_nothing(
    serve: Serve, dial: Dial, box: Box, query: str, first: int
) -> None:
    await serve()
    for value in range(5):
        await box.commit("dtc.observed", value)
    caller = await dial()
    caller.get(f"/v1/events?follow=1&{query}")
    await caller.head()
    await box.commit("dtc.observed", "live")

    seqs = [(await read_line(caller))["seq"] for _ in range(first, 7)]

    assert seqs == list(range(first, 7))


async def test_a_follower_that_leaves_is_forgotten_at_once(
    serve: Serve, dial: Dial, box: Box
) -> None:
    await serve()
    caller = await dial()
    caller.get("/v1/events?follow=1")
    await caller.head()
    await box.followed(1)

    caller.writer.close()

    async with asyncio.timeout(5):
        await box.followed(0)


async def test_a_follow_that_the_source_ends_ends_cleanly(
    serve: Serve, dial: Dial, box: Box
) -> None:
    await serve()
    caller = await dial()
    caller.get("/v1/events?follow=1")
    await caller.head()

    box.followers[0].put_nowait(None)

    assert await caller.rest() == b"0\r\n\r\n"


async def test_a_follower_that_does_not_read_is_cut_off(serve: Serve, dial: Dial, box: Box) -> None:
    await serve(write_s=0.05)
    caller = await dial()
    caller.get("/v1/events?follow=1")
    await caller.head()

    for _ in range(100):
        await box.commit("dtc.observed", "x" * 20_000)

    async with asyncio.timeout(5):
        await box.followed(0)


async def test_a_follow_that_cannot_begin_is_a_plain_answer(
    serve: Serve, dial: Dial, box: Box
) -> None:
    await serve()
    box.fault = UnavailableError("the agent is stopping")
    caller = await dial()

    caller.get("/v1/events?follow=1")

    assert (await caller.head()).startswith(b"HTTP/1.1 503 ")
