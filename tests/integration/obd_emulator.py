"""The emulated adapter: a process that answers a scenario's requests on a socket."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.obd_cars import Emulator, Entry, StartEmulator


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[StartEmulator]:
    processes: list[asyncio.subprocess.Process] = []

    async def start(commands: list[Entry], *options: str) -> Emulator:
        scenario, log = tmp_path / "scenario.json", tmp_path / "emulator.log"
        scenario.write_text(
            json.dumps(
                {
                    "schema_version": "obd2.sim_scenario.v1",
                    "scenario_id": "test",
                    "synthetic": True,
                    "defaults": {"at_response": "OK\r\r>", "obd_response": "NO DATA\r\r>"},
                    "commands": commands,
                }
            )
        )
        with log.open("w") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "elmulator", "serve", str(scenario), "--port", "0"),
                *options,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        processes.append(process)
        assert process.stdout is not None
        word, port = (await process.stdout.readline()).split()
        assert word == b"LISTENING"
        return Emulator(f"socket://127.0.0.1:{int(port)}", log, process)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()
