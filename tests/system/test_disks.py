"""Disks that go back in time, with the real console, agents and broker: nothing is lost by it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.system.test_agent_process import Box

from nexus_agent.broker import BrokerAddress
from nexus_demo.api import Console, health
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import NotYet, until

PASSWORD = "correct horse battery"


class Head:
    """A console's process with its database, and a client of its API."""

    def __init__(self, folder: Path, address: BrokerAddress) -> None:
        folder.mkdir()
        self.database = folder / "console.db"
        self.file = folder / "console.toml"
        port = free_port()
        self.file.write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\n'
            f'[database]\nurl = "sqlite:///{self.database}"\n'
            f'[broker]\nurl = "{address.url}"\nca = "{address.ca}"\n'
        )
        self._command = (sys.executable, "-m", "nexus_console")
        self.process = Process(
            "console", (*self._command, "run", "--config", self.file), folder / "console.log"
        )
        self.address = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=f"{self.address}/api/v1", timeout=10)
        self.api = Console(self.http, "ann", PASSWORD)

    async def run(self, *arguments: str | Path, given: str = "") -> None:
        """One of its commands, to its end."""
        command = (*self._command, *map(str, arguments), "--config", str(self.file))
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(given.encode())
        assert process.returncode == 0, said.decode()

    async def start(self) -> None:
        await self.process.start()
        await until("the console answers", self._answers, within=30)

    async def _answers(self) -> None:
        self.process.check()
        await health(self.address)


@pytest.fixture
async def console(tmp_path: Path, address: BrokerAddress) -> AsyncIterator[Head]:
    head = Head(tmp_path / "console", address)
    user = ("user", "add", "ann", "--role", "admin", "--password-stdin")
    await head.run(*user, given=f"{PASSWORD}\n")
    yield head
    await head.http.aclose()
    await head.process.kill()


@pytest.fixture
async def box(tmp_path: Path, address: BrokerAddress) -> AsyncIterator[Box]:
    box = Box(tmp_path / "box", address)
    with box.file.open("a", encoding="utf-8") as file:
        file.write("[plugins.host]\ninterval_s = 1\n")
    yield box
    await box.process.kill()


async def lanes(console: Head) -> dict[tuple[int, str], Any]:
    return {(d["epoch"], d["stream"]): d for d in await console.api.delivery("box-1")}


async def reaches(console: Head, count: int, epoch: int = 1) -> None:
    """Wait until telemetry of *epoch* is here without a gap up to *count*."""

    async def check() -> None:
        lane = (await lanes(console)).get((epoch, "telemetry"))
        if lane is None or lane["high_water"] < count:
            raise NotYet(str(lane))

    await until(f"telemetry {epoch}/{count} is in the console", check, within=60)


async def identities(console: Head) -> list[tuple[int, str, int]]:
    events = await console.api.events("box-1")
    return [(event["epoch"], event["stream"], event["seq"]) for event in events]


async def test_a_console_restored_from_a_backup_has_everything_again(
    console: Head, box: Box, tmp_path: Path
) -> None:
    await console.start()
    await box.connect()
    await reaches(console, 3)
    await console.run("backup", tmp_path / "backup")
    await reaches(console, 8)
    await console.process.stop()
    for file in console.database.parent.glob("console.db*"):
        file.unlink()
    await console.run("restore", tmp_path / "backup")
    await console.start()
    await reaches(console, 9)
    found = await identities(console)
    assert len(found) == len(set(found))
    assert {seq for epoch, stream, seq in found if stream == "telemetry"} >= set(range(1, 10))
    assert [lane["losses"] for lane in (await lanes(console)).values() if lane["losses"]] == []


async def test_a_box_restored_from_an_old_image_numbers_anew_and_loses_nothing(
    console: Head, box: Box, tmp_path: Path
) -> None:
    await console.start()
    await box.connect()
    await reaches(console, 2)
    await box.assert_stops()
    shutil.copytree(box.state_dir, tmp_path / "image")
    await box.connect()
    await reaches(console, 8)
    await box.assert_stops()
    before = set(await identities(console))
    shutil.rmtree(box.state_dir)
    shutil.copytree(tmp_path / "image", box.state_dir)
    await box.connect()
    await reaches(console, 3, epoch=2)
    assert before <= set(await identities(console))
    async with asyncio.timeout(10):
        delivery = (await console.http.get("/devices/box-1/delivery")).json()
    assert {remark["kind"] for remark in delivery["remarks"]} == {"epoch"}
