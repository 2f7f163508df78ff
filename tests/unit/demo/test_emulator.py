from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus_demo import vehicles
from nexus_demo.emulator import Car
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import NotYet, until


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    number = free_port()
    command = [sys.executable, "-m", "nexus_demo.emulator", str(vehicles.MISFIRE.scenario)]
    environ = {"PYTHONPATH": str(Path(vehicles.__file__).parents[1])}
    process = Process("car", [*command, "--port", str(number)], tmp_path / "car.log", environ)
    await process.start()

    async def listening() -> None:
        process.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", number)
        except OSError as error:
            raise NotYet(str(error)) from None
        writer.close()

    await until("the car listens", listening, within=10, every=0.02)
    yield number
    await process.stop()


async def _ask(port: int, *requests: str) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    replies = []
    for request in requests:
        writer.write(f"{request}\r".encode())
        replies.append((await reader.readuntil(b">")).decode())
    writer.close()
    await writer.wait_closed()
    return replies


async def test_the_car_remembers_its_clear_across_connections(port: int) -> None:
    (before,) = await _ask(port, "03")
    await _ask(port, "04")
    (after,) = await _ask(port, "03")
    assert before == "7E8 10 08 43 03 03 01 04 20\r7E8 21 C1 23\r\r>"
    assert after == "7E8 02 43 00\r\r>"


async def test_two_lines_in_one_packet_get_two_answers(port: int) -> None:
    assert await _ask(port, "ATI\rATRV", "") == ["ELM327 v1.5\r\r>", "14.1V\r\r>"]


async def test_what_the_car_does_not_know_is_no_data(port: int) -> None:
    assert await _ask(port, "0146") == ["NO DATA\r\r>"]


async def test_the_engine_stands_while_the_file_is_there(tmp_path: Path) -> None:
    engine_off = tmp_path / "engine-off"
    car = Car(vehicles.MISFIRE.scenario, engine_off=engine_off)

    engine_off.touch()
    assert car.answer("010C")[0] == ["7E8 04 41 0C 00 00\r\r>"]
    engine_off.unlink()
    assert car.answer("010C")[0] == ["7E8 04 41 0C 0B F2\r\r>"]
