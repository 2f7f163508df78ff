"""The agent as a process: how fast it is there, and what it costs when nothing happens."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

import psutil
from figure import Figure

from nexus_agent.broker import BrokerAddress
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
    address = config.parent / "notify.sock"
    address.unlink(missing_ok=True)
    loop = asyncio.get_running_loop()
    births = len([1 for _, presence in peer.presence if presence.online])
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.setblocking(False)
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nexus_agent", "run", "--config", str(config)),
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stderr=asyncio.subprocess.DEVNULL,
        )
        while b"READY=1" not in await loop.sock_recv(notify, 4096):
            pass
        ready = time.perf_counter() - started
        await peer.until(
            lambda: len([1 for _, presence in peer.presence if presence.online]) > births
        )
        online = time.perf_counter() - started
        seen = psutil.Process(process.pid)
        await asyncio.sleep(idle_s / 3)
        before = sum(seen.cpu_times()[:2])
        await asyncio.sleep(idle_s)
        cpu = (sum(seen.cpu_times()[:2]) - before) / max(idle_s, 0.001) * 100
        memory = seen.memory_info().rss / 1e6
        process.terminate()
        await process.wait()
    return ready, online, memory, cpu
