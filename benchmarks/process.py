"""The agent as a process: how fast it is there, and what it costs when nothing happens."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from box import box
from figure import Figure, texts

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Stream
from nexus_agent.store.database import FILE_NAME
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority
from nexus_demo.peer import Peer, connected

_AGENT = """\
[agent]
id = "bench"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
[broker]
url = "{url}"
ca = "{ca}"
[plugins.host]
state_path = "{folder}"
[plugins.obd]
port = "socket://127.0.0.1:1"
"""
_READY_S: Final = 60.0
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Life:
    """One life of an agent. started: by `time.perf_counter`; ready: seconds until READY=1."""

    pid: int
    started: float
    ready: float


@asynccontextmanager
async def agent(config: Path) -> AsyncIterator[Life]:
    """An agent that is ready, for the length of a block. Raises TimeoutError where it is not."""
    address = config.parent / "notify.sock"
    address.unlink(missing_ok=True)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.setblocking(False)
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nexus_agent", "run", "--config", str(config)),
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_READY_S):
                while b"READY=1" not in await loop.sock_recv(notify, 4096):
                    pass
            yield Life(process.pid, started, time.perf_counter() - started)
            process.terminate()
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def start_and_idle(folder: Path, idle_s: float) -> list[Figure]:
    """Start to ready, start to online, then memory and CPU of an idle agent."""
    broker = Broker(folder / "broker", Authority(folder / "ca"), choose("auto"))
    await broker.start()
    config = folder / "agent.toml"
    config.write_text(_AGENT.format(folder=folder, url=broker.url, ca=broker.ca))
    try:
        async with connected(BrokerAddress(url=broker.url, ca=broker.ca)) as peer:
            # The first start builds the database; what a shop sees daily is the second.
            await _live(config, peer, 0)
            ready, online, memory, cpu = await _live(config, peer, idle_s)
    finally:
        await broker.stop()
    return [
        Figure("process start to ready", round(ready, 2), "s", "<= 1", ready <= 1),
        Figure("process start to online", round(online, 2), "s", "<= 2", online <= 2),
        Figure("idle memory, host and obd", round(memory, 1), "MB RSS", "<= 70", memory <= 70),
        Figure("idle CPU, host and obd", round(cpu, 2), "% of a core", "<= 1", cpu <= 1),
    ]


async def _live(config: Path, peer: Peer, idle_s: float) -> tuple[float, float, float, float]:
    """One life of an agent: seconds to ready and to online, MB, percent of a core."""
    births = len([1 for _, presence in peer.presence if presence.online])
    async with agent(config) as life:
        await peer.until(
            lambda: len([1 for _, presence in peer.presence if presence.online]) > births
        )
        online = time.perf_counter() - life.started
        seen = psutil.Process(life.pid)
        await asyncio.sleep(idle_s / 3)
        before = sum(seen.cpu_times()[:2])
        await asyncio.sleep(idle_s)
        cpu = (sum(seen.cpu_times()[:2]) - before) / max(idle_s, 0.001) * 100
        memory = seen.memory_info().rss / 1e6
    return life.ready, online, memory, cpu


async def restart(folder: Path, megabytes: int) -> list[Figure]:
    """Start to ready with an outbox of *megabytes* and no broker, its file on the disk only."""
    broker = Broker(folder / "broker", Authority(folder / "ca"), choose("auto"))
    config = folder / "agent.toml"
    config.write_text(_AGENT.format(folder=folder, url=broker.url, ca=broker.ca))
    state = folder / "state"
    filling = time.perf_counter()
    async with box(state, None) as outbox:
        for events in texts(megabytes * 1_000_000):
            await outbox.emit("bench", events, Stream.EVENT)
    filling = time.perf_counter() - filling
    async with agent(config):
        pass  # what only the first start does
    size = _forget(state / FILE_NAME)
    async with agent(config) as life:
        ready = life.ready
    return [
        Figure(
            "process start to ready, large outbox",
            round(ready, 2),
            "s",
            "<= 1",
            ready <= 1,
            f"{size / 1e6:.0f} MB that wait, emitted through the outbox in {filling:.1f} s, "
            "dropped from the page cache",
        )
    ]


def _forget(file: Path) -> int:
    """Have the kernel drop *file* from its page cache; its size in bytes."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
