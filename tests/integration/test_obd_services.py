"""A whole examination against emulated cars: every service, over a real socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.obd_cars import (
    Entry,
    StartEmulator,
    bits,
    breaks_off,
    can,
    iso,
    says,
)
from tests.integration.obd_serial import serial_line

from nexus_agent.plugin import Settings, Stream
from nexus_agent.protocol.catalogue.scans import Findings
from nexus_agent.testing import RecordingContext
from nexus_plugins.obd import examination, transport
from nexus_plugins.obd.elm327 import AdapterError, Elm327
from nexus_plugins.obd.examination import Outcome
from nexus_plugins.obd.vehicle import Vehicle, identify

pytest_plugins = ["tests.integration.obd_emulator"]

VIN = "1HGCM82633A004352"
CAR = {"vehicle_ref": "ref", "vin": VIN}
ADAPTER = [says("ATZ", "ELM327 v1.5"), says("ATDPN", "A6")]


def told(ecu: str, text: str) -> list[str]:
    return can(ecu, bytes.fromhex(text))


def listing(service: str, *numbers: int, base: int = 0, frame: str = "") -> bytes:
    """The answer that lists *numbers*."""
    head = bytes([int(service, 16) + 0x40, base]) + bytes.fromhex(frame)
    return head + bits(numbers, base)


ENGINE_PIDS = (0x01, 0x04, 0x05, 0x0C, 0x14, 0x1C, 0x20)
FRAME_VALUES = (0x02, 0x04, 0x05, 0x0C, 0x14)
COUNTERS = b"".join(word.to_bytes(2, "big") for word in (500, 900, *range(1, 15)))

HONDA: list[Entry] = [
    *ADAPTER,
    says("0100", *can("7E8", listing("01", *ENGINE_PIDS)), *can("7E9", listing("01", 0x01))),
    says("0120", *can("7E8", listing("01", 0x21, 0x40, base=0x20))),
    says("0140", *can("7E8", listing("01", 0x41, base=0x40))),
    says("0902", *can("7E8", b"\x49\x02\x01" + VIN.encode())),
    says("03", *told("7E8", "43 01 0301"), *told("7E9", "43 00")),
    says("07", *told("7E8", "47 00"), *told("7E9", "47 00")),
    says("0A", *told("7E8", "4A 01 0301"), *told("7E9", "7F 0A 11")),
    says("020200", *told("7E8", "42 02 00 0301"), *told("7E9", "7F 02 11")),
    says("020201", *told("7E8", "42 02 01 0420")),
    says("020202", *told("7E8", "42 02 02 0000")),
    says("020000", *can("7E8", listing("02", *FRAME_VALUES, frame="00"))),
    says("020001", *can("7E8", listing("02", 0x0C, 0x20, frame="01"))),
    says("022001", *can("7E8", b"\x42\x20\x01" + bits([0x2F], 0x20))),
    says("020400", *told("7E8", "42 04 00 80")),
    says("020500", *told("7E8", "42 05 01 7B")),
    says("020C00", *told("7E8", "42 0C 00 1AF8")),
    says("021400", *told("7E8", "42 14 00 5AFF")),
    says("020C01", *told("7E8", "42 0C 01 0C80")),
    says("022F01", *told("7E8", "7F 02 22")),
    says("0101", *told("7E8", "41 01 81 07 65 04"), *told("7E9", "41 01 00 04 00 00")),
    says("0141", *told("7E8", "41 41 00 11 00 00")),
    says(
        "0900",
        *can("7E8", listing("09", 0x02, 0x04, 0x06, 0x08, 0x0A)),
        *can("7E9", listing("09", 0x04)),
    ),
    says(
        "0904",
        *can("7E8", b"\x49\x04\x01" + b"37805-RAA-A57\0\0\0"),
        *can("7E9", b"\x49\x04\x01" + b"28101-RCL-003\0\0\0"),
    ),
    says("0906", *told("7E8", "49 06 01 1791BC82"), *told("7E9", "7F 09 12")),
    says("0908", *can("7E8", b"\x49\x08\x10" + COUNTERS)),
    says("090A", *can("7E8", b"\x49\x0a\x01" + b"ECM\0-EngineControl\0\0")),
    says("0600", *can("7E8", listing("06", 0x01, 0x20))),
    says("0620", *can("7E8", listing("06", 0x21, base=0x20))),
    says("0601", *told("7E8", "46 01 01 0A 0E66 0D99 FFFF  01 05 10 0050 0000 0040")),
    says("0621", *told("7E8", "46 21 80 20 0000 0000 0000")),
]


def changed(base: list[Entry], *entries: Entry) -> list[Entry]:
    """The car, with other answers to some requests."""
    names = {entry["request"] for entry in entries}
    return [*entries, *(entry for entry in base if entry["request"] not in names)]


def quiet(_: str) -> None:
    """Progress that nobody looks at."""


@asynccontextmanager
async def adapter_at(port: str) -> AsyncIterator[Elm327]:
    link = await transport.connect(port, baudrate=38_400, within_s=5.0)
    try:
        elm = Elm327(link, timeout_s=1.0, search_timeout_s=5.0)
        await elm.set_up()
        yield elm
    finally:
        link.close()


async def examine(elm: Elm327) -> Outcome:
    """Examine whatever is there; every event is one that a box may emit."""
    vehicle = await identify(elm)
    assert isinstance(vehicle, Vehicle)
    car = CAR if vehicle.vin.number else {}
    outcome = await examination.full(elm, vehicle, (), quiet, {"scan_id": "scan", **car})
    Findings.model_validate({**car, **outcome.findings})
    context = RecordingContext(Settings())
    await context.emit_many(outcome.events, stream=Stream.EVENT)
    return outcome


async def outcome_of(emulator: StartEmulator, commands: list[Entry]) -> Outcome:
    emulated = await emulator(commands)
    async with adapter_at(emulated.port) as elm:
        return await examine(elm)


def of(outcome: Outcome, event: str) -> list[dict[str, Any]]:
    return [data for kind, data in outcome.events if kind == event]


def by_ecu(outcome: Outcome, event: str) -> dict[str, Any]:
    (data,) = of(outcome, event)
    return {each["ecu"]: each for each in data["ecus"]}


# -- every service --------------------------------------------------------------------------------


async def test_events_tell_of_one_scan_in_their_order(emulator: StartEmulator) -> None:
    emulated = await emulator(HONDA)
    async with adapter_at(emulated.port) as elm:
        outcome = await examine(elm)

    kinds = [kind for kind, _ in outcome.events]
    assert list(dict.fromkeys(kinds)) == [
        "freeze_frame.captured",
        "readiness.snapshot",
        "calibration.ids",
        "monitor.counters",
        "monitor.tests",
    ]
    assert {(data["scan_id"], data["vin"]) for _, data in outcome.events} == {("scan", VIN)}
    assert outcome.findings["modules"][0]["name"] == "ECM-EngineControl"
    assert VIN not in repr(outcome)


@pytest.mark.parametrize("base", ["can", "iso"])
async def test_a_serial_line_tells_every_service_alike(emulator: StartEmulator, base: str) -> None:
    emulated = await emulator(HONDA if base == "can" else OLD_CAR)
    async with adapter_at(emulated.port) as elm:
        over_tcp = await examine(elm)
    async with serial_line(emulated.port) as path, adapter_at(path) as elm:
        over_serial = await examine(elm)

    assert (over_serial.findings, over_serial.events) == (over_tcp.findings, over_tcp.events)
    assert over_serial.events == over_tcp.events


async def test_freeze_frames_are_asked_for_by_number_until_there_is_none(
    emulator: StartEmulator,
) -> None:
    outcome = await outcome_of(emulator, HONDA)

    first, second = of(outcome, "freeze_frame.captured")
    assert (first["ecu"], first["frame"], first["code"]) == ("7E8", 0, "P0301")
    assert [(v["name"], v["value"], v["unit"], v["quality"]) for v in first["values"]] == [
        ("engine_load", 50.2, "%", "ok"),
        ("coolant_temperature", None, "°C", "malformed"),
        ("engine_speed", 1726, "rpm", "ok"),
        ("oxygen_sensor_1_voltage", 0.45, "V", "ok"),
        ("oxygen_sensor_1_trim", None, "%", "absent"),
    ]
    assert first["values"][1]["detail"] == "an answer about another frame"
    assert (second["frame"], second["code"]) == (1, "P0420")
    assert [(v["name"], v["value"], v["quality"]) for v in second["values"]] == [
        ("engine_speed", 800, "ok"),
        ("fuel_level", None, "refused"),
    ]
    assert outcome.findings["freeze_frames"] == [
        {"ecu": "7E8", "quality": "ok", "detail": None, "frames": 2},
        {
            "ecu": "7E9",
            "quality": "refused",
            "detail": "NRC 0x11, service not supported",
            "frames": 0,
        },
    ]


async def test_readiness_is_told_by_control_unit_with_verdicts_of_its_year(
    emulator: StartEmulator,
) -> None:
    outcome = await outcome_of(emulator, HONDA)

    (snapshot,) = of(outcome, "readiness.snapshot")
    engine, gearbox = snapshot["ecus"]
    assert (engine["mil"], engine["dtc_count"], engine["ignition"]) == (True, 1, "spark")
    assert (gearbox["ecu"], gearbox["mil"]) == ("7E9", False)
    cycle = {monitor["name"]: monitor["complete"] for monitor in engine["cycle"]}
    assert (cycle["misfire"], gearbox["cycle"]) == (False, None)
    assert snapshot["model_year"] == 2003
    assert [
        (v["rule"], v["ready"], v["allowed"], v["incomplete"]) for v in snapshot["verdicts"]
    ] == [
        ("epa", True, 1, ["evaporative_system"]),
        ("carb", True, 1, ["evaporative_system"]),
    ]


async def test_frames_are_scaled_as_their_control_unit_says(emulator: StartEmulator) -> None:
    turbo = [
        *ADAPTER,
        says("0100", *can("7E8", listing("01", 0x0B, 0x20)), *can("7E9", listing("01", 0x0B))),
        says("0120", *can("7E8", listing("01", 0x40, base=0x20))),
        says("0140", *can("7E8", listing("01", 0x4F, base=0x40))),
        says("014F", *told("7E8", "41 4F 00 00 00 28")),
        says("020200", *told("7E8", "42 02 00 0234"), *told("7E9", "42 02 00 0234")),
        says(
            "020000",
            *can("7E8", listing("02", 0x0B, frame="00")),
            *can("7E9", listing("02", 0x0B, frame="00")),
        ),
        says("020B00", *told("7E8", "42 0B 00 FF"), *told("7E9", "42 0B 00 FF")),
    ]

    outcome = await outcome_of(emulator, turbo)

    frames = {frame["ecu"]: frame["values"] for frame in of(outcome, "freeze_frame.captured")}
    assert [frames[ecu][0]["value"] for ecu in ("7E8", "7E9")] == [400, 255]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (told("7E9", "41 01 00 04 00 00"), "7E8 is silent: did not answer"),
        (
            [*told("7E8", "7F 01 22"), *told("7E9", "41 01 00 04 00 00")],
            "7E8 refuses to tell its readiness: NRC 0x22, conditions not correct",
        ),
        (
            [*told("7E8", "41 01 81 07 65"), *told("7E9", "41 01 00 04 00 00")],
            "7E8 cannot be understood: 3 data bytes, 4 expected",
        ),
    ],
    ids=["silent", "refused", "malformed"],
)
async def test_there_is_no_verdict_without_everybodys_answer(
    emulator: StartEmulator, answer: list[str], reason: str
) -> None:
    outcome = await outcome_of(emulator, changed(HONDA, says("0101", *answer)))

    (snapshot,) = of(outcome, "readiness.snapshot")
    assert {(v["ready"], v["reason"]) for v in snapshot["verdicts"]} == {(None, reason)}


async def test_calibrations_and_counters_are_told_by_control_unit(emulator: StartEmulator) -> None:
    outcome = await outcome_of(emulator, HONDA)

    calibrations = by_ecu(outcome, "calibration.ids")
    assert (calibrations["7E8"]["ids"], calibrations["7E8"]["cvns"]) == (
        ("37805-RAA-A57",),
        ("1791BC82",),
    )
    assert calibrations["7E9"]["ids"] == ("28101-RCL-003",)
    assert calibrations["7E9"]["cvn_quality"] == "refused"
    counters = by_ecu(outcome, "monitor.counters")
    assert (counters["7E8"]["obd_conditions"], counters["7E8"]["ignition_cycles"]) == (500, 900)
    assert counters["7E8"]["counters"][0] == {
        "name": "catalyst_bank_1",
        "completions": 1,
        "conditions": 2,
    }
    assert (counters["7E9"]["quality"], counters["7E9"]["detail"]) == (
        "absent",
        "the control unit says that it does not have it",
    )


async def test_test_results_are_told_with_their_limits(emulator: StartEmulator) -> None:
    outcome = await outcome_of(emulator, HONDA)

    tests = by_ecu(outcome, "monitor.tests")
    found = [
        (t["monitor"], t["test"], t["value"], t["unit"], t["passed"]) for t in tests["7E8"]["tests"]
    ]
    assert found == [
        (0x01, 0x01, 449.692, "mV", True),
        (0x01, 0x05, 80, "ms", False),
        (0x21, 0x80, 0, "1", None),
    ]
    assert (tests["7E9"]["quality"], tests["7E9"]["tests"]) == ("absent", [])


# -- other cars -----------------------------------------------------------------------------------


def numbered(infotype: int, data: bytes) -> list[str]:
    """A long answer of service 09 on an older bus."""
    return [
        (bytes([0x49, infotype, 1 + i // 4]) + data[i : i + 4]).hex()
        for i in range(0, len(data), 4)
    ]


OLD_CAR = [
    says("ATZ", "ELM327 v1.5"),
    says("ATDPN", "A3"),
    says("0100", *iso(0x10, listing("01", *ENGINE_PIDS[:-1]).hex())),
    says("0902", *iso(0x10, *numbered(0x02, b"\0\0\0" + VIN.encode()))),
    says("03", *iso(0x10, "43 0301 0420 0171", "43 0172 0000 0000")),
    says("07", *iso(0x10, "47 0000 0000 0000")),
    says("020200", *iso(0x10, "42 02 00 0301")),
    says("020000", *iso(0x10, listing("02", 0x05, 0x0C, frame="00").hex())),
    says("020500", *iso(0x10, "42 05 00 7B")),
    says("020C00", *iso(0x10, "42 0C 00 1AF8")),
    says("0101", *iso(0x10, "41 01 84 07 65 00")),
    says("0900", *iso(0x10, "4900 01" + bits([0x02, 0x04, 0x06, 0x08]).hex())),
    says("0904", *iso(0x10, *numbered(0x04, b"37805-P3F-A57\0\0\0"))),
    says("0906", *iso(0x10, "49 06 01 1791BC82")),
    says("0908", *iso(0x10, *numbered(0x08, COUNTERS))),
    says("0600", *iso(0x10, "46 00 FF" + bits([0x02]).hex())),
    says("0602", *iso(0x10, "46 02 01 0050 0064", "46 02 82 0050 0064")),
]


async def test_an_older_bus_tells_the_same_in_its_own_form(emulator: StartEmulator) -> None:
    outcome = await outcome_of(emulator, OLD_CAR)

    codes = {
        code
        for module in outcome.findings["modules"]
        for said in module["answers"].values()
        for code in said["codes"]
    }
    assert sorted(codes) == ["P0171", "P0172", "P0301", "P0420"]
    (frame,) = of(outcome, "freeze_frame.captured")
    assert (frame["ecu"], frame["code"]) == ("10", "P0301")
    assert [value["value"] for value in frame["values"]] == [83, 1726]
    (calibration,) = by_ecu(outcome, "calibration.ids").values()
    assert (calibration["ids"], calibration["cvns"]) == (("37805-P3F-A57",), ("1791BC82",))
    (counters,) = by_ecu(outcome, "monitor.counters").values()
    assert counters["counters"][-1]["name"] == "evaporative_system"
    (tests,) = by_ecu(outcome, "monitor.tests").values()
    found = [(t["test"], t["component"], t["maximum"], t["passed"]) for t in tests["tests"]]
    assert found == [(2, 1, 100, True), (2, 2, None, False)]


SILENT_CAR = [*ADAPTER, says("0100", *can("7E8", listing("01", 0x0C)))]


async def test_what_a_car_does_not_support_is_asked_once_and_told_as_silence(
    emulator: StartEmulator,
) -> None:
    emulated = await emulator(SILENT_CAR)
    async with adapter_at(emulated.port) as elm:
        outcome = await examine(elm)

    assert of(outcome, "freeze_frame.captured") == []
    assert outcome.findings["freeze_frames"][0]["quality"] == "absent"
    for event in ("calibration.ids", "monitor.counters", "monitor.tests"):
        assert {each["quality"] for each in by_ecu(outcome, event).values()} == {"absent"}
    (snapshot,) = of(outcome, "readiness.snapshot")
    assert [v["reason"] for v in snapshot["verdicts"]] == [
        "no control unit tells its readiness",
    ] * 2
    asked = ("03", "07", "0A", "020200", "0101", "0900", "0600", "0904", "0601", "020000")
    # The emulator writes its log after it has answered.
    while emulated.count("0600") == 0:
        await asyncio.sleep(0.005)
    assert [emulated.count(each) for each in asked] == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]


async def test_a_car_that_tells_its_vin_but_no_list_is_asked_for_the_rest(
    emulator: StartEmulator,
) -> None:
    commands = changed(HONDA, says("0900", "NO DATA"), says("020000", "NO DATA"))

    outcome = await outcome_of(emulator, commands)

    assert by_ecu(outcome, "calibration.ids")["7E8"]["ids"] == ("37805-RAA-A57",)
    first = of(outcome, "freeze_frame.captured")[0]
    assert [value["name"] for value in first["values"] if value["quality"] == "ok"] == [
        "engine_load",
        "engine_speed",
        "oxygen_sensor_1_voltage",
    ]


async def test_a_frame_whose_code_is_refused_is_told_without_one(emulator: StartEmulator) -> None:
    commands = changed(HONDA, says("020200", *told("7E8", "7F 02 22")))

    outcome = await outcome_of(emulator, commands)

    first = of(outcome, "freeze_frame.captured")[0]
    assert (first["frame"], first["code"]) == (0, None)
    assert outcome.findings["freeze_frames"][0]["quality"] == "refused"


async def test_an_adapter_that_answers_whatever_is_asked_does_not_keep_the_scan_for_ever(
    emulator: StartEmulator,
) -> None:
    frames = [says(f"0202{n:02X}", *told("7E8", f"42 02 {n:02X} 0301")) for n in range(256)]

    outcome = await outcome_of(emulator, changed(SILENT_CAR, *frames))

    assert len(of(outcome, "freeze_frame.captured")) == 16


async def test_a_lost_adapter_ends_the_examination(emulator: StartEmulator) -> None:
    emulated = await emulator(changed(HONDA, breaks_off("0904", "7E8 10")))

    async with adapter_at(emulated.port) as elm:
        with pytest.raises(AdapterError, match="closed by the adapter"):
            await examine(elm)


# -- answers that make no sense -------------------------------------------------------------------


def garbled(chance: random.Random, lines: list[str]) -> list[str]:
    """The lines of an answer, damaged in one of the ways in which adapters damage them."""
    lines = list(lines)
    at = chance.randrange(len(lines))
    digits = "0123456789ABCDEF"
    match chance.randrange(7):
        case 0:
            lines[at] = lines[at][: chance.randrange(len(lines[at]))]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            del lines[at]
        case 3:
            chance.shuffle(lines)
        case 4:
            lines.append("".join(chance.choices(digits + " ", k=chance.randrange(30))))
        case 5:
            lines = [chance.choice(("NO DATA", "CAN ERROR", "?", "STOPPED", "BUFFER FULL"))]
        case _:
            pass
    return lines or ["NO DATA"]


def facts(outcome: Outcome) -> set[str]:
    """Everything that an outcome claims to be so."""
    found = [
        *(f"{d['ecu']} {d['kind']} {d['code']}" for d in of(outcome, "dtc.observed")),
        *(
            f"{d['ecu']} frame {d['frame']} {d['code']} {v['name']}={v['value']}"
            for d in of(outcome, "freeze_frame.captured")
            for v in d["values"]
            if v["quality"] == "ok" and d["code"]
        ),
    ]
    (snapshot,) = of(outcome, "readiness.snapshot")
    found += [
        f"{s['ecu']} {s['mil']} {s['dtc_count']} {s['ignition']} {s['monitors']}"
        for s in snapshot["ecus"]
        if s["quality"] == "ok"
    ]
    found += [f"{v['rule']} {v['ready']}" for v in snapshot["verdicts"] if v["ready"] is not None]
    for ecu, said in by_ecu(outcome, "calibration.ids").items():
        found += [f"{ecu} {each}" for each in (*said["ids"], *said["cvns"], said["name"]) if each]
    for ecu, said in by_ecu(outcome, "monitor.counters").items():
        found += [f"{ecu} {said['ignition_cycles']} {each}" for each in said["counters"]]
    for ecu, said in by_ecu(outcome, "monitor.tests").items():
        found += [f"{ecu} {each}" for each in said["tests"]]
    return set(found)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("base", [HONDA, OLD_CAR], ids=["can", "iso"])
async def test_damaged_answers_lose_facts_and_never_make_one_up(
    emulator: StartEmulator, base: list[Entry], seed: int
) -> None:
    chance = random.Random(seed)
    kept = {"ATZ", "ATDPN", "0100"}
    rounds = 12
    damaged = [
        says(
            entry["request"],
            *garbled(chance, entry["response_chunks"][0].removesuffix("\r\r>").split("\r")),
        )
        for entry in base
        for _ in range(rounds)
        if entry["request"] not in kept
    ]
    truth = facts(await outcome_of(emulator, base))
    emulated = await emulator(changed(base, *damaged))

    told_of: set[str] = set()
    async with adapter_at(emulated.port) as elm:
        for _ in range(rounds):
            found = facts(await examine(elm))
            assert found <= truth
            assert len(found) < len(truth)
            told_of |= found
    assert told_of
