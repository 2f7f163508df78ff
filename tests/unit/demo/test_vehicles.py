from __future__ import annotations

import json

import pytest
from elmulator.validate import validate  # type: ignore[import-untyped]

from nexus_demo import vehicles
from nexus_demo.emulator import Car
from nexus_demo.vehicles import Vehicle

each_vehicle = pytest.mark.parametrize("vehicle", vehicles.ALL, ids=lambda vehicle: vehicle.name)


def _reply(car: Car, request: str) -> str:
    pieces, _, _ = car.answer(request)
    return "".join(pieces)


@each_vehicle
def test_the_scenario_is_valid(vehicle: Vehicle) -> None:
    assert validate(vehicle.scenario) == []


@each_vehicle
def test_the_scenario_says_the_vin(vehicle: Vehicle) -> None:
    commands = json.loads(vehicle.scenario.read_text("utf-8"))["commands"]
    (reply,) = ["".join(c["response_chunks"]) for c in commands if c["request"] == "0902"]
    # Frames are "<header> <PCI> <data>"; the VIN is what follows 49 02 01 (SAE J1979 service 09).
    data = [frame.split(" ")[-8:] for frame in reply.removesuffix("\r\r>").split("\r")]
    digits = "".join(byte for frame in (data[0][2:], *(f[1:] for f in data[1:])) for byte in frame)
    assert bytes.fromhex(digits).removeprefix(b"\x49\x02\x01").decode() == vehicle.vin


@each_vehicle
def test_engine_speed_goes_round(vehicle: Vehicle) -> None:
    car, count = Car(vehicle.scenario), len(vehicle.speeds())
    first = [_reply(car, "010C") for _ in range(count)]
    assert len(set(first)) == count
    assert [_reply(car, "01 0c") for _ in range(count)] == first


def test_codes_change_when_they_are_cleared_and_not_when_they_are_read() -> None:
    car = Car(vehicles.MISFIRE.scenario)
    before = [_reply(car, "03") for _ in range(3)]
    cleared = _reply(car, "04")
    after = [_reply(car, "03") for _ in range(3)]
    assert "44" in cleared
    assert len(set(before)) == len(set(after)) == 1
    assert before[0] != after[0]


def test_the_awkward_adapter_goes_on_echoing() -> None:
    car = Car(vehicles.AWKWARD.scenario)
    _reply(car, "ATE0")
    assert _reply(car, "010C").startswith("010C\r18 DA F1 10 04 41 0C")
