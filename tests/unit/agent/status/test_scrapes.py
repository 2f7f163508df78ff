"""The metrics over TCP on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.agent.status.conftest import Box

from nexus_agent.status import scrapes
from nexus_agent.status.connection import Limits
from nexus_agent.status.scrapes import Address, MetricsServer
from nexus_demo.processes import free_port


class Source(Box):
    async def metrics(self) -> str:
        return "nexus_online 1\n"


@asynccontextmanager
async def serving(
    address: Address | None, limits: Limits | None = None
) -> AsyncIterator[MetricsServer]:
    server = MetricsServer(address, Source(), limits=limits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="metrics")
        try:
            yield server
        finally:
            task.cancel()
    await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn


async def ask(address: Address, request: str) -> str:
    """The whole answer, once somebody listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_connection(*address)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
            return answer


@pytest.fixture
def address() -> Address:
    return "127.0.0.1", free_port()


async def test_the_metrics_are_there_and_nothing_else(address: Address) -> None:
    async with serving(address):
        answer = await ask(address, "GET /metrics")
        assert answer.startswith("HTTP/1.1 200 ")
        assert "text/plain; version=0.0.4; charset=utf-8" in answer
        assert answer.endswith("\r\n\r\nnexus_online 1\n")
        for path in ("/v1/status", "/v1/events?follow=1", "/"):
            assert (await ask(address, f"GET {path}")).startswith("HTTP/1.1 404 ")
        assert (await ask(address, "POST /metrics")).startswith("HTTP/1.1 405 ")
        assert (await ask(address, "GET /metrics?x=1")).startswith("HTTP/1.1 400 ")


async def test_callers_beyond_the_limit_are_sent_away(address: Address) -> None:
    async with serving(address, Limits(connections=1)):
        await ask(address, "GET /metrics")
        _, first = await asyncio.open_connection(*address)
        first.write(b"GET /metrics")  # not whole: it stays
        second = ""
        async with asyncio.timeout(10):
            while "too many connections" not in second:
                second = await ask(address, "GET /metrics")
        first.close()
        await first.wait_closed()


async def test_a_port_in_use_is_asked_for_again(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrapes, "RETRY_S", 0.01)
    with socket.create_server(address):
        async with serving(address) as server, asyncio.timeout(10):
            while server.trouble is None:
                await asyncio.sleep(0.01)
            assert server.trouble == (
                f"127.0.0.1:{address[1]} cannot be listened at: address already in use"
            )
            other = "127.0.0.1", free_port()
            server.move(other)
            assert "200" in await ask(other, "GET /metrics")
            assert server.trouble is None


async def test_the_port_is_taken_once_it_is_free(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrapes, "RETRY_S", 0.01)
    taken = socket.create_server(address)
    async with serving(address) as server, asyncio.timeout(10):
        while server.trouble is None:
            await asyncio.sleep(0.01)
        taken.close()
        assert "200" in await ask(address, "GET /metrics")
        assert server.trouble is None


async def test_it_listens_nowhere_unless_told_so_and_stops_when_told(address: Address) -> None:
    async with serving(None) as server:
        server.move(address)
        assert "200" in await ask(address, "GET /metrics")
        server.move(None)
        async with asyncio.timeout(10):
            while True:
                try:
                    socket.create_server(address).close()
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    break
        assert server.trouble is None
