"""An agent on a disk that cannot be written: it runs, says so, and goes on by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.system.test_agent_process import Box

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Stream
from nexus_demo.peer import connected

HOST = "[plugins.host]\ninterval_s = 1\n"


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def umount(folder: Path) -> None:
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
async def box(tmp_path: Path, address: BrokerAddress) -> AsyncIterator[Box]:
    """An agent whose state folder is a small file system of its own, and a broker."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    box = Box(tmp_path / "box", address)
    with box.file.open("a", encoding="utf-8") as file:
        file.write(HOST)
    box.state_dir.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "nexus-test", box.state_dir)
    yield box
    await box.process.kill()
    umount(box.state_dir)


def cannot_store(status: dict[str, Any]) -> bool:
    return any("Nothing can be stored" in sentence["text"] for sentence in status["health"])


def well(status: dict[str, Any]) -> bool:
    return not cannot_store(status) and status["broker"]["state"] == "connected"


async def test_it_starts_on_a_read_only_disk_and_goes_on_by_itself(
    box: Box, address: BrokerAddress
) -> None:
    await box.start()
    await box.assert_stops()
    mount("-o", "remount,ro", box.state_dir)
    async with connected(address) as peer:
        await box.start()
        await box.until("it says that it cannot store", cannot_store)
        await peer.until(lambda: [p for _, p in peer.presence if p.storage])
        mount("-o", "remount,rw", box.state_dir)
        await box.until("all is well again", well)
        await peer.until(lambda: peer.presence[-1][1].epoch)
        await peer.until(lambda: peer.of("box-1", "host.metrics"))
        await box.assert_stops()


async def test_it_stops_while_it_waits_for_its_disk(box: Box) -> None:
    await box.start()
    await box.assert_stops()
    mount("-o", "remount,ro", box.state_dir)
    await box.start()
    await box.until("it says that it cannot store", cannot_store)
    await box.assert_stops()


def fill(folder: Path) -> Path:
    """Leave no room in *folder*, the agent's reserve included; return the file that takes it."""
    stuffing = folder / "stuffing"
    with stuffing.open("wb", buffering=0) as file:
        for _ in range(2):
            with suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            (folder / "reserve").unlink(missing_ok=True)
    return stuffing


async def test_the_console_hears_of_a_full_disk_while_it_lasts(
    box: Box, address: BrokerAddress
) -> None:
    async with connected(address) as peer:
        await box.connect()
        await peer.until(lambda: peer.of("box-1", "host.metrics"))
        stuffing = fill(box.state_dir)
        await box.until("it says that it cannot store", cannot_store)
        await peer.until(lambda: [p for _, p in peer.presence if p.storage])
        stuffing.unlink()
        await box.until("all is well again", well)
        await peer.until(lambda: peer.presence[-1][1].storage is None)


async def test_it_starts_on_a_full_disk_and_keeps_what_it_promised(box: Box) -> None:
    await box.start()
    await box.until("there are events", lambda status: status["outbox"]["pending_events"])
    stuffing = fill(box.state_dir)
    await box.process.kill()
    promised = {event.seq for event in box.stored(Stream.EVENT)}
    await box.start()
    await box.until("it says that it cannot store", cannot_store)
    stuffing.unlink()
    await box.until("all is well again", lambda status: not cannot_store(status))
    assert promised
    assert promised <= {event.seq for event in box.stored(Stream.EVENT)}
