"""The `nexus-console run` process: what it tells its service manager, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nexus_agent.broker import BrokerAddress
from nexus_demo.processes import free_port


def write_config(tmp_path: Path, url: str, ca: Path | None) -> Path:
    file = tmp_path / "console.toml"
    file.write_text(
        f'[server]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[database]\nurl = "sqlite:///{tmp_path}/console.db"\n'
        f'[broker]\nurl = "{url}"\n' + (f'ca = "{ca}"\n' if ca else "")
    )
    return file


class Manager:
    """The service manager's end of `$NOTIFY_SOCKET`."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.setblocking(False)

    async def hears(self, word: str) -> str:
        """The first message with *word* in it."""
        async with asyncio.timeout(20):
            while True:
                message = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
                if word in message.decode():
                    return message.decode()

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def console(file: Path, manager: Manager) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_console", "run", "--config", str(file)),
        env={"NOTIFY_SOCKET": str(manager.address)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        manager.close()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_cleanly_within_five_seconds(
    tmp_path: Path, address: BrokerAddress, signal_number: int
) -> None:
    manager = Manager(tmp_path)
    async with console(write_config(tmp_path, address.url, address.ca), manager) as process:
        await manager.hears("READY=1")
        await manager.hears("STATUS=broker connected, database ok")
        began = time.monotonic()
        process.send_signal(signal_number)
        await manager.hears("STOPPING=1")
        assert await process.wait() == 0
        assert time.monotonic() - began < 5


async def test_it_is_up_and_stops_without_a_broker(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    file = write_config(tmp_path, f"mqtts://127.0.0.1:{free_port()}", None)
    async with console(file, manager) as process:
        await manager.hears("READY=1")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_an_address_in_use_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    file = write_config(tmp_path, "mqtts://127.0.0.1", None)
    port = int(file.read_text().split(":")[1].split('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        async with console(file, manager) as process:
            _, errors = await process.communicate()
    assert process.returncode == 2
    (line,) = errors.decode().splitlines()
    assert line.startswith(f"nexus-console: {file}: server.listen: 127.0.0.1:{port}: ")
    assert line.endswith("cannot listen: Address already in use")
