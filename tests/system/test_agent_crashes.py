"""An agent that nobody stopped says at its next start how it ended, and so does a rollback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.test_agent_process import Box

from nexus_agent import __version__
from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Stream
from nexus_demo.processes import free_port
from nexus_demo.waiting import NotYet, until


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    """An agent whose broker is absent, and whose package has a folder for its notes."""
    address = BrokerAddress(url=f"mqtts://127.0.0.1:{free_port()}")
    box = Box(tmp_path / "box", address, NEXUS_AGENT__UPGRADE_DIR=str(tmp_path / "upgrade"))
    box.file.write_text(box.file.read_text("utf-8").replace(', ca = "None"', ""), "utf-8")
    yield box
    await box.process.kill()


def alerts(box: Box, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in box.stored(Stream.ALERT) if event.type == kind]


async def told(box: Box, kind: str = "agent.crashed", count: int = 1) -> list[dict[str, Any]]:
    """The data of such events, once there are *count* of them."""

    async def check() -> None:
        try:
            if len(alerts(box, kind)) >= count:
                return
        except sqlite3.OperationalError:
            pass  # it has no tables yet
        raise NotYet(box.process.tail())

    await until(f"{count} {kind}", check, within=20, every=0.05)
    return alerts(box, kind)


async def quiet(box: Box) -> None:
    """Start the agent with its plugins switched off."""
    text = box.file.read_text("utf-8").replace("mark =", "enabled = false\nmark =")
    box.file.write_text(text, "utf-8")
    await box.start()


async def end(box: Box, number: signal.Signals) -> None:
    """Send a signal and wait for the end."""
    os.kill(box.process.pid, number)
    async with asyncio.timeout(20):
        while box.process.running:
            await asyncio.sleep(0.02)


async def test_a_kill_without_a_trace_is_told_once(box: Box) -> None:
    await box.start()
    await end(box, signal.SIGKILL)
    await box.start()
    [report] = await told(box)
    assert (report["kind"], report["version"]) == ("killed", __version__)
    assert report["stack"] == []
    await box.assert_stops()
    roll_back(box, "1")
    await box.start()
    await told(box, "agent.rolled_back")
    assert len(alerts(box, "agent.crashed")) == 1, "crashes would have come before it"
    await box.assert_stops()


async def test_a_clean_stop_leaves_nothing_to_tell(box: Box) -> None:
    await box.enable("stubborn").start()
    await box.marked()
    await box.assert_stops()
    assert list((box.state_dir / "crashes").iterdir()) == []


async def test_a_stop_while_it_starts_is_a_clean_one(box: Box) -> None:
    await box.process.start()

    async def check() -> None:
        if not (box.state_dir / "crashes" / "running.json").exists():
            raise NotYet(box.process.tail())

    await until("it is under way", check, within=20, every=0.001)
    await box.assert_stops()
    assert list((box.state_dir / "crashes").iterdir()) == []


async def test_a_blocked_loop_is_told_with_the_plugin_that_blocks_it(box: Box) -> None:
    await box.enable("freezing").process.start()
    await box.marked()
    await end(box, signal.SIGABRT)  # as systemd's watchdog does
    await quiet(box)
    [report] = await told(box)
    assert report["kind"] == "signal"
    assert report["reason"].startswith("SIGABRT")
    assert report["plugin"] == "freezing"
    lines = report["stack"]
    assert lines[0].startswith("Current thread")
    assert any(line.endswith(" in run") and "nexus_test_plugins.py:" in line for line in lines[:9])
    assert any(line.startswith("Thread ") for line in lines), "the other threads, too"
    await box.assert_stops()


async def test_a_service_that_died_is_told_with_its_name_and_where(box: Box) -> None:
    box.enable("stubborn")
    message = "no answer for 1HGCM82633A004352 at mqtt://box:hunter2@broker"
    await run_broken(box, f"raise RuntimeError({message!r}) from ValueError('deep')")
    await quiet(box)
    [report] = await told(box)
    assert report["reason"] == "RuntimeError: no answer for [vin] at mqtt://[secret]@broker"
    assert (report["kind"], report["service"]) == ("error", "housekeeping")
    assert "ValueError: deep" in report["stack"]
    assert "  <string>:5 in die" in report["stack"]
    await box.assert_stops()


async def test_so_it_is_without_a_plugin_that_is_in_the_way(box: Box) -> None:
    await run_broken(box, "raise RuntimeError('the history is gone')")
    await box.start()
    [report] = await told(box)
    assert report["reason"] == "RuntimeError: the history is gone"
    assert report["service"] == "housekeeping"
    await box.assert_stops()


async def run_broken(box: Box, statement: str) -> None:
    """Run an agent one of whose services does *statement* once the plugins are at their work."""
    text = box.file.read_text("utf-8")
    wait = f"not pathlib.Path({str(box.mark)!r}).exists()" if box.mark.name in text else "False"
    program = (
        "import asyncio, pathlib, sys\n"
        "from nexus_agent import __main__, app\n"
        "async def die(self):\n"
        f"    while {wait}: await asyncio.sleep(0.05)\n"
        f"    {statement}\n"
        "app.Housekeeper.run = die\n"
        "__main__.main(['run', '--config', sys.argv[1]])"
    )
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(box.file)),
        env=box.environ,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        assert await agent.wait() == 1


def roll_back(box: Box, identity: str) -> None:
    """What the package's helper leaves when it has switched an upgrade back."""
    folder = Path(box.environ["NEXUS_AGENT__UPGRADE_DIR"])
    folder.mkdir(exist_ok=True)
    note = {
        "id": identity,
        "from": "0.1.1",
        "to": "0.1.0",
        "reason": f"not ready {identity}",
        "at": "2026-11-23T10:00:00Z",
    }
    (folder / "rollback.json").write_text(json.dumps(note), "utf-8")


async def test_each_rollback_is_told_once(box: Box) -> None:
    roll_back(box, "a")
    await box.start()
    first = await told(box, "agent.rolled_back")
    assert first == [
        {"from": "0.1.1", "to": "0.1.0", "reason": "not ready a", "at": "2026-11-23T10:00:00Z"}
    ]
    await box.assert_stops()
    await box.start()
    await box.assert_stops()
    roll_back(box, "b")
    await box.start()
    both = await told(box, "agent.rolled_back", 2)
    assert [data["reason"] for data in both] == ["not ready a", "not ready b"]
    await box.assert_stops()


async def test_a_note_that_is_no_rollback_is_in_nobodys_way(box: Box) -> None:
    roll_back(box, "a")
    (Path(box.environ["NEXUS_AGENT__UPGRADE_DIR"]) / "rollback.json").write_text("{", "utf-8")
    await box.start()

    async def check() -> None:
        if "rollback_unreadable" not in box.process.log.read_text("utf-8"):
            raise NotYet(box.process.tail())

    await until("it says what it found", check, within=20, every=0.05)
    await box.assert_stops()
