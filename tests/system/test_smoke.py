"""The smoke as anybody runs it: a process, its last line, its file, its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import nexus_demo
from nexus_demo import smoke
from nexus_demo.broker import find_mosquitto
from nexus_demo.waiting import NotYet, until

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(nexus_demo.__file__).parents[1])}
BROKERS = [
    pytest.param(
        "mosquitto",
        marks=pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto here"),
    ),
    "embedded",
]


async def _start(module: str, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRON,
    )


def _writing_to(folder: Path) -> list[str]:
    """Every running process whose output goes to a file in *folder*: all that a fleet started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            output = str((process / "fd" / "1").readlink())
        except OSError:
            continue  # somebody else's, or it has just ended
        if output.startswith(f"{folder}/"):
            found.append(output)
    return sorted(found)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker", BROKERS)
async def test_smoke(broker: str, tmp_path: Path) -> None:
    process = await _start("nexus_demo.smoke", "--broker", broker, "--folder", str(tmp_path))
    output, _ = await process.communicate()
    text = output.decode()
    result: dict[str, Any] = json.loads(text.splitlines()[-1])
    assert process.returncode == 0, text
    assert result == json.loads(smoke.RESULT.read_text("utf-8"))
    assert (result["ok"], result["boxes"], result["gaps"], result["duplicates"]) == (True, 5, 0, 0)
    assert result["events"] > 100
    assert _writing_to(tmp_path) == []


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo, once it has told what to try."""
    process = await _start("nexus_demo", "--broker", "embedded", "--folder", str(tmp_path))
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"Ctrl-C"):
            break
    assert len(_writing_to(tmp_path)) == 12, "a broker, a console, five agents, cars and a truck"
    yield process
    if process.returncode is None:
        process.kill()
        await process.communicate()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_demo_leaves_no_process_behind(
    number: signal.Signals, demo: asyncio.subprocess.Process, tmp_path: Path
) -> None:
    demo.send_signal(number)
    output, _ = await demo.communicate()
    assert demo.returncode == 0, output.decode()
    assert _writing_to(tmp_path) == []


@pytest.mark.timeout(120)
async def test_a_killed_demo_leaves_no_process_behind(
    demo: asyncio.subprocess.Process, tmp_path: Path
) -> None:
    async def gone() -> None:
        if left := _writing_to(tmp_path):
            raise NotYet(f"left: {left}")

    demo.kill()
    await demo.communicate()
    await until("everything is gone", gone, within=10)
