from __future__ import annotations

from pathlib import Path

import pytest

from nexus_demo import vehicles
from nexus_demo.emulator import Car
from nexus_demo.memory import Memory


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    memory = Memory(tmp_path / "car.json")
    memory.remember()
    return memory


@pytest.fixture
def car(memory: Memory) -> Car:
    return Car(vehicles.MISFIRE.scenario, memory)


def _reply(car: Car, request: str) -> str:
    pieces, _, _ = car.answer(request)
    return "".join(pieces).removesuffix("\r\r>")


def test_a_car_with_no_fault_says_so(car: Car) -> None:
    assert [_reply(car, service) for service in ("03", "07", "0A")] == [
        "7E8 02 43 00",
        "7E8 02 47 00",
        "7E8 02 4A 00",
    ]


def test_what_the_story_writes_the_car_says(memory: Memory, car: Car) -> None:
    memory.remember(stored=["P0301", "U0123"], pending=["P0301"], permanent=["B1A2F"])
    assert _reply(car, "03") == "7E8 06 43 02 03 01 C1 23"
    assert _reply(car, "07") == "7E8 04 47 01 03 01"
    assert _reply(car, "0A") == "7E8 04 4A 01 9A 2F"


def test_the_lamp_is_on_while_a_code_is_stored(memory: Memory, car: Car) -> None:
    memory.remember(pending=["P0301"])
    off = _reply(car, "0101")
    memory.remember(stored=["P0301"])
    on = _reply(car, "0101")
    assert (off.split()[4], on.split()[4]) == ("00", "81")


def test_a_clear_leaves_permanent_codes(memory: Memory, car: Car) -> None:
    memory.remember(stored=["P0301"], pending=["P0301"], permanent=["P0301"])
    assert _reply(car, "04") == "7E8 01 44"
    kinds = ("stored", "pending", "permanent")
    assert [memory.codes(kind) for kind in kinds] == [[], [], ["P0301"]]


def test_everything_else_is_the_scenarios(car: Car) -> None:
    without = Car(vehicles.MISFIRE.scenario)
    assert _reply(car, "0902") == _reply(without, "0902")


def test_more_codes_than_a_frame_holds_are_refused(memory: Memory) -> None:
    with pytest.raises(ValueError, match="at most 2 codes of a kind"):
        memory.remember(stored=["P0301", "P0302", "P0303"])
