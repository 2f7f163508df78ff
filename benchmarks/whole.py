"""The whole path: an agent's outbox and link, the broker, and the real console behind it."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from beacon import TYPE
from box import DEVICE
from figure import Figure
from script import run_script

from nexus_demo.api import health
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import NotYet, until

_USER: Final = "bench"
_PASSWORD: Final = "only for this benchmark"  # noqa: S105 - on loopback, for a minute
_START_S: Final = 30.0
_WITHIN_S: Final = 120.0
_PER_SECOND: Final = 7
_TOML: Final = """\
[server]
listen = "{listen}"
[database]
url = "sqlite:///{home}/console.db"
[broker]
url = "{url}"
ca = "{ca}"
[log]
level = "warning"
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """A broker, and the console behind it at *address* (`http://host:port`)."""

    broker: Broker
    address: str


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Shop]:
    """A broker and a console of its own, each a process, for the length of a block."""
    broker = Broker(folder / "broker", Authority(folder / "ca"), choose("auto"))
    home, listen = folder / "console", f"127.0.0.1:{free_port()}"
    home.mkdir()
    config = home / "console.toml"
    config.write_text(_TOML.format(listen=listen, home=home, url=broker.url, ca=broker.ca))
    command = sys.executable, "-m", "nexus_console"
    console = Process(
        "console", [*command, "run", "--config", config], home / "console.log", os.environ
    )
    address = f"http://{listen}"

    async def well() -> None:
        console.check()
        answer = await health(address)
        if not answer["ok"] or answer["broker"] != "connected":
            raise NotYet(str(answer))

    await broker.start()
    try:
        await _add_user(config)
        await console.start()
        await until("the console is well", well, within=_START_S)
        yield Shop(broker, address)
    finally:
        await console.stop()
        await broker.stop()


async def _add_user(config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_console", "user", "add", _USER, "--role", "viewer"),
        *("--config", str(config), "--password-stdin"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_START_S):
            await process.communicate(f"{_PASSWORD}\n".encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def into_console(folder: Path, count: int, singles: int) -> list[Figure]:
    """*count* events as fast as they go, then *singles* one by one."""
    async with shop(folder) as at:
        state = folder / "state"
        box = at.broker.url, at.broker.ca, state
        elapsed, _ = await run_script("box.py", *box, count, within=_WITHIN_S)
        waits = await _watch(at.address, box, singles)
    rate, where = count / elapsed, f"{at.broker.kind}, TLS, console on SQLite"
    p50, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
    live = f"{where}; told by its live stream and fetched, {len(waits)} events, {_PER_SECOND}/s"
    return [
        Figure(
            "durable events, with the console",
            round(rate),
            "events/s",
            ">= 50000",
            rate >= 50_000,
            f"{where}, {count} events",
        ),
        Figure("emit to visible, p50", round(p50, 1), "ms", "<= 50", p50 <= 50, live),
        Figure("emit to visible, p99", round(p99, 1), "ms", "<= 200", p99 <= 200, live),
    ]


async def _watch(address: str, box: tuple[str | Path, ...], singles: int) -> list[float]:
    """Milliseconds from `emit` until the console's API has answered with the event, each."""
    waits: list[float] = []
    async with httpx.AsyncClient(
        base_url=f"{address}/api/v1", timeout=_START_S, trust_env=False
    ) as http:
        answer = await http.post("/login", json={"username": _USER, "password": _PASSWORD})
        http.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['token']}"
        async with asyncio.timeout(_WITHIN_S), http.stream("GET", "/live") as live:
            lines = live.raise_for_status().aiter_lines()
            await anext(lines)
            async with asyncio.TaskGroup() as group:
                beacon = run_script("beacon.py", *box, singles, _PER_SECOND, within=_WITHIN_S)
                group.create_task(beacon, name="beacon")
                cursor = ""
                while len(waits) < singles:
                    await _change(lines)
                    cursor = await _fetch(http, cursor, waits)
    return waits


async def _change(lines: AsyncIterator[str]) -> None:
    """Return when the live stream says that something has changed."""
    async for line in lines:
        if line == "event: change":
            return
    raise RuntimeError("the console has ended its live stream")


async def _fetch(http: httpx.AsyncClient, cursor: str, waits: list[float]) -> str:
    """Book the events behind *cursor*; the new cursor."""
    query = {"type": TYPE, "limit": "1000"} | ({"after": cursor} if cursor else {})
    answer = await http.get(f"/devices/{DEVICE}/events", params=query)
    page, now = answer.raise_for_status().json(), time.monotonic()
    waits += [(now - event["data"]["sent"]) * 1000 for event in page["events"]]
    return str(page["next"])
