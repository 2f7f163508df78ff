"""The obd plugin against an emulated adapter, over a real socket and a real pseudo-terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.integration.obd_cars import (
    Entry,
    StartEmulator,
    breaks_off,
    can,
    says,
    stalls,
    supporting,
)
from tests.integration.obd_serial import serial_line
from tests.integration.scanning import scan

from nexus_agent.plugin import PluginError
from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.obd import ObdPlugin
from nexus_plugins.obd.commands import AdapterArgs
from nexus_plugins.obd.settings import ObdSettings

VIN = "1D4GP00R55B123450"
SUPPORTED = (0x04, 0x05, 0x0C, 0x0D)

pytest_plugins = ["tests.integration.obd_emulator"]

# -- scenarios ------------------------------------------------------------------------------------

VIN_MESSAGE = b"\x49\x02\x01" + VIN.encode()
RPM, SPEED, COOLANT, LOAD = b"\x41\x0c\x1a\xf8", b"\x41\x0d\x32", b"\x41\x05\x7b", b"\x41\x04\x80"
CAR: list[Entry] = [
    says("ATZ", "ELM327 v1.5"),
    says("ATDPN", "A6"),
    says("0100", *can("7E8", supporting(SUPPORTED))),
    says("0902", *can("7E8", VIN_MESSAGE)),
    says("010C", *can("7E8", RPM)),
    says("010D", *can("7E8", SPEED)),
    says("0105", *can("7E8", COOLANT)),
    says("0104", *can("7E8", LOAD)),
    says("03", *can("7E8", b"\x43\x00")),
    says("07", *can("7E8", b"\x47\x00")),
    says("0A", *can("7E8", b"\x4a\x00")),
    says("04", *can("7E8", b"\x44")),
]
STANDING = says("010C", *can("7E8", b"\x41\x0c\x00\x00"))
"""The engine is off, as a clear needs it."""


def car(*changed: Entry) -> list[Entry]:
    """The usual car, with other answers to some requests."""
    names = {entry["request"] for entry in changed}
    return [*changed, *(entry for entry in CAR if entry["request"] not in names)]


# -- running the plugin ---------------------------------------------------------------------------

Context = RecordingContext[ObdSettings]


def context_for(port: str, *, state: MemoryState | None = None, **settings: Any) -> Context:
    quick = {"interval_s": 0.05, "timeout_s": 1.0, "reconnect_max_s": 0.05, "probe_interval_s": 0.1}
    return RecordingContext(
        ObdSettings.model_validate({"port": port, **quick, **settings}), state=state
    )


@asynccontextmanager
async def plugged(context: Context) -> AsyncIterator[ObdPlugin]:
    """The plugin running until the block ends."""
    plugin = ObdPlugin(context)
    with structlog.testing.capture_logs() as logs:
        async with running(plugin):
            yield plugin
    assert VIN not in str(logs) + str(context.reports)


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def states(context: Context) -> list[str]:
    return [data["state"] for data in context.of("adapter.state")]


async def reach(context: Context, *expected: str) -> None:
    """Wait for so many states and compare all of them."""
    await context.wait_for("adapter.state", len(expected))
    assert states(context) == list(expected)


def telemetry(context: Context, name: str) -> list[Any]:
    return [data for data in context.of("telemetry.pid") if data["name"] == name]


def quiet(_: str) -> None:
    """Progress that nobody looks at."""


# -- identity and live values ---------------------------------------------------------------------


async def test_a_car_is_identified_and_polled(emulator: StartEmulator) -> None:
    adapter = await emulator(CAR)
    context = context_for(adapter.port, pids=[0x0C, 0x0D, 0x05, 0x04, 0x5C])

    async with plugged(context):
        await context.wait_for("telemetry.pid", 8)

    assert context.of("vehicle.identified") == [
        {
            "vehicle_ref": f"test-{VIN}",
            "vin": VIN,
            "adapter": adapter.port,
            "ecu": "7E8",
            "ecus": ["7E8"],
            "protocol": "ISO 15765-4, 11 bit, 500 kbit/s",
            "supported_pids": list(SUPPORTED),
            "quality": "ok",
            "vin_check": "wrong",
            "maker": "Dodge",
            "model_year": 2005,
            "region": "North America",
        }
    ]
    (connected,) = context.of("adapter.state")
    assert (connected["state"], connected["version"]) == ("connected", "ELM327 v1.5")
    assert telemetry(context, "engine_speed")[0] == {
        "vehicle_ref": f"test-{VIN}",
        "vin": VIN,
        "adapter": adapter.port,
        "ecu": "7E8",
        "pid": 12,
        "name": "engine_speed",
        "value": 1726,
        "unit": "rpm",
        "quality": "ok",
    }
    values = {data["name"]: data["value"] for data in context.of("telemetry.pid")}
    assert values == {
        "engine_speed": 1726,
        "vehicle_speed": 50,
        "coolant_temperature": 83,
        "engine_load": 50.2,
    }
    assert adapter.count("015C") == 0


async def test_one_question_may_have_several_values(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(
            says("0100", *can("7E8", supporting((0x0C, 0x14)))),
            says("0114", *can("7E8", b"\x41\x14\x5a\xff")),
        )
    )
    context = context_for(adapter.port, pids=[0x14])

    async with plugged(context):
        await until(lambda: len(telemetry(context, "oxygen_sensor_1_voltage")) >= 3)

    told = {(data["name"], data["value"], data["quality"]) for data in context.of("telemetry.pid")}
    assert told == {
        ("oxygen_sensor_1_voltage", 0.45, "ok"),
        ("oxygen_sensor_1_trim", None, "absent"),
    }


HEADERLESS_VIN = [
    "014",
    "0: 49 02 01 31 44 34",
    "1: 47 50 30 30 52 35 35",
    "2: 42 31 32 33 34 35 30",
]
PADDED = [
    says(request, *can("7E8", message, padding=b"\xaa"))
    for request, message in (("0100", supporting(SUPPORTED)), ("0902", VIN_MESSAGE), ("010C", RPM))
]
WIDE = [
    says(request, *can("18DAF110", message))
    for request, message in (("0100", supporting(SUPPORTED)), ("0902", VIN_MESSAGE), ("010C", RPM))
]
HEADERLESS = [
    says("0100", supporting(SUPPORTED).hex(" ")),
    says("0902", *HEADERLESS_VIN),
    says("010C", RPM.hex(" ")),
]
UNSPACED = [
    {**e, "response_chunks": [c.replace(" ", "") for c in e["response_chunks"]]} for e in CAR
]


@pytest.mark.parametrize(
    ("commands", "options", "ecu"),
    [
        (CAR, ["--echo", "on"], "7E8"),
        (CAR, ["--split", "1,2,5"], "7E8"),
        (UNSPACED[2:], [], "7E8"),
        (car(says("0100", "SEARCHING...", *can("7E8", supporting(SUPPORTED)))), [], "7E8"),
        (car(*PADDED), [], "7E8"),
        (car(*WIDE), [], "18DAF110"),
        (car(*HEADERLESS), ["--echo", "on"], "unknown"),
    ],
    ids=["echoed", "split", "unspaced", "searching", "padded", "29-bit", "headerless"],
)
async def test_every_form_of_answer_is_understood(
    emulator: StartEmulator, commands: list[Entry], options: list[str], ecu: str
) -> None:
    adapter = await emulator(commands, *options)
    context = context_for(adapter.port)

    async with plugged(context):
        await context.wait_for("telemetry.pid")

    (identified,) = context.of("vehicle.identified")
    assert (identified["vin"], identified["ecu"]) == (VIN, ecu)
    speed = telemetry(context, "engine_speed")[0]
    assert (speed["value"], speed["ecu"], speed["quality"]) == (1726, ecu, "ok")


async def test_what_is_no_value_is_told_once_with_its_quality(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(
            says("010D", "7E8 03 7F 01 12"),
            says("0105", "NO DATA"),
            says("0104", "7E8 02 41 04"),
        )
    )
    context = context_for(adapter.port)

    async with plugged(context):
        await until(lambda: len(telemetry(context, "engine_speed")) >= 4)

    told = [(d["name"], d["value"], d["quality"]) for d in context.of("telemetry.pid")]
    assert [entry for entry in told if entry[0] != "engine_speed"] == [
        ("vehicle_speed", None, "refused"),
        ("coolant_temperature", None, "absent"),
        ("engine_load", None, "malformed"),
    ]


@pytest.mark.parametrize(
    ("answer", "quality"),
    [
        ("NO DATA", "absent"),
        ("7E8 03 7F 09 31", "refused"),
        ("7E8 10 14 49 02 01 31 44 34", "malformed"),
        ("#@!%", "malformed"),
    ],
)
async def test_a_vin_that_is_not_told_is_not_made_up(
    emulator: StartEmulator, answer: str, quality: str
) -> None:
    adapter = await emulator(car(says("0902", answer)))
    context = context_for(adapter.port)

    async with plugged(context):
        await context.wait_for("telemetry.pid")

    (identified,) = context.of("vehicle.identified")
    assert identified["quality"] == quality
    assert "vehicle_ref" not in identified
    assert "vehicle_ref" not in context.of("telemetry.pid")[0]


async def test_a_late_answer_never_becomes_another_value(emulator: StartEmulator) -> None:
    late = says("010D", *can("7E8", b"\x41\x0d\x99"), delay_ms=450)
    adapter = await emulator(car(late, says("010D", *can("7E8", SPEED))))
    context = context_for(adapter.port, timeout_s=0.3)

    async with plugged(context):
        await until(lambda: len(telemetry(context, "vehicle_speed")) >= 3)

    told = [(d["value"], d["quality"]) for d in telemetry(context, "vehicle_speed")]
    assert told[:2] == [(None, "absent"), (50, "ok")]
    others = {(d["name"], d["value"]) for d in context.of("telemetry.pid")} - {
        ("vehicle_speed", None),
        ("vehicle_speed", 50),
    }
    assert others == {("engine_speed", 1726), ("coolant_temperature", 83), ("engine_load", 50.2)}
    assert states(context) == ["connected"]


# -- adapters that fail ---------------------------------------------------------------------------


async def test_a_silent_adapter_is_told_once_within_its_deadline(emulator: StartEmulator) -> None:
    adapter = await emulator([stalls("ATZ"), stalls("ATE0")])
    context = context_for(adapter.port, timeout_s=0.1)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state", within=1.0)
        await until(lambda: context.reports.count(context.reports[0]) >= 3)
        with pytest.raises(PluginError, match="No adapter is connected"):
            await scan(plugin)

    assert states(context) == ["silent"]


async def test_an_adapter_that_falls_silent_comes_back(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(says("010C", *can("7E8", RPM)), stalls("010C"), says("ATE0", "OK"), stalls("ATE0"))
    )
    context = context_for(adapter.port, timeout_s=0.2)

    async with plugged(context):
        await context.wait_for("adapter.state", 3)

    assert states(context)[:3] == ["connected", "silent", "connected"]


async def test_a_break_in_the_middle_of_an_answer_is_a_lost_adapter(
    emulator: StartEmulator,
) -> None:
    adapter = await emulator(car(*CAR[5:6], breaks_off("010D", "7E8 03 41 0D")))
    context = context_for(adapter.port)

    async with plugged(context):
        await context.wait_for("adapter.state", 3)

    assert states(context)[:3] == ["connected", "lost", "connected"]
    assert {data["value"] for data in telemetry(context, "vehicle_speed")} == {50}


async def test_an_adapter_lost_while_nothing_is_asked_is_noticed_at_once(
    emulator: StartEmulator,
) -> None:
    adapter = await emulator(car(says("0100", "UNABLE TO CONNECT")))
    context = context_for(adapter.port, probe_interval_s=600)

    async with plugged(context):
        await reach(context, "no_vehicle")
        adapter.process.kill()
        await reach(context, "no_vehicle", "lost")


async def test_a_changed_poll_rate_takes_effect_within_a_second_on_the_same_connection(
    emulator: StartEmulator,
) -> None:
    adapter = await emulator(car())
    context = context_for(adapter.port, interval_s=600.0, pids=[12])

    async with plugged(context):
        await context.wait_for("telemetry.pid")
        context.become(context.settings.model_copy(update={"interval_s": 0.05}))
        await context.wait_for("telemetry.pid", 5, within=1.5)
        assert [state["state"] for state in context.of("adapter.state")] == ["connected"]


async def test_where_nothing_listens_commands_fail_at_once_in_plain_words() -> None:
    context = context_for("socket://127.0.0.1:1")

    async with plugged(context) as plugin:
        await reach(context, "lost")
        with pytest.raises(PluginError) as failure:
            await scan(plugin)

    assert str(failure.value) == (
        "No adapter is connected at socket://127.0.0.1:1: Connection refused."
    )


async def test_a_missing_serial_device_is_a_lost_adapter(tmp_path: Path) -> None:
    context = context_for(str(tmp_path / "ttyUSB0"))

    async with plugged(context):
        await reach(context, "lost")

    assert context.of("adapter.state")[0]["detail"] == "No such file or directory"


# -- vehicles that stand or are missing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "detail"),
    [(["7E8 04 41 0C 00 00"], "the engine stands still"), (["NO DATA"], "does not answer")],
)
async def test_with_the_engine_off_polling_stops_until_it_runs(
    emulator: StartEmulator, answer: list[str], detail: str
) -> None:
    off = [says("010C", *answer)] * 8
    missing = (
        [] if "0C" in answer[0] else [says(pid, "NO DATA") for pid in ("010D", "0105", "0104")]
    )
    adapter = await emulator(car(*off, says("010C", *can("7E8", RPM)), *missing))
    context = context_for(adapter.port, idle_after_s=0.2)

    async with plugged(context):
        await context.wait_for("adapter.state", 2)
        polled = adapter.count("010D")
        await context.wait_for("adapter.state", 3)
        assert adapter.count("010D") == polled
        await until(lambda: telemetry(context, "engine_speed")[-1]["value"] == 1726)

    assert states(context) == ["connected", "engine_off", "connected"]
    assert detail in context.of("adapter.state")[1]["detail"]
    assert len(context.of("vehicle.identified")) == 2


async def test_without_a_vehicle_the_adapter_waits_for_one(emulator: StartEmulator) -> None:
    nobody = says("0100", "SEARCHING...", "UNABLE TO CONNECT")
    adapter = await emulator(car(nobody, nobody, says("0100", *can("7E8", supporting(SUPPORTED)))))
    context = context_for(adapter.port, probe_interval_s=0.3)

    async with plugged(context) as plugin:
        await reach(context, "no_vehicle")
        with pytest.raises(PluginError, match="No vehicle: no vehicle answers"):
            await scan(plugin)
        await reach(context, "no_vehicle", "connected")


# -- commands -------------------------------------------------------------------------------------


async def test_scan_clear_scan_tells_what_was_fixed(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(
            says("03", *can("7E8", bytes.fromhex("4303 0301 0420 C123"))),
            says("03", *can("7E8", bytes.fromhex("4301 0171"))),
            says("0A", *can("7E8", bytes.fromhex("4A01 0420"))),
            STANDING,
        )
    )
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("telemetry.pid")
        before = await scan(plugin)
        cleared = await plugin.clear(AdapterArgs(), quiet)
        after = await scan(plugin)

    assert before["dtcs"] == [
        {"code": "P0301", "kinds": ["stored"], "ecu": "7E8"},
        {"code": "P0420", "kinds": ["stored", "permanent"], "ecu": "7E8"},
        {"code": "U0123", "kinds": ["stored"], "ecu": "7E8"},
    ]
    assert before["diff"] is None
    assert (cleared["outcome"], cleared["vin"]) == ("ok", VIN)
    assert context.of("dtc.cleared") == [cleared]
    assert after["diff"] == {
        "before": before["scan_id"],
        "after": after["scan_id"],
        "vehicle_ref": f"test-{VIN}",
        "vin": VIN,
        "fixed": [{"code": "P0301", "ecu": "7E8"}, {"code": "U0123", "ecu": "7E8"}],
        "remaining": [],
        "permanent": [{"code": "P0420", "ecu": "7E8", "kinds": ["permanent"]}],
        "new": [{"code": "P0171", "ecu": "7E8", "kinds": ["stored"]}],
        "unknown": [],
    }
    assert context.of("scan.diff") == [after["diff"]]
    assert [data["scan_id"] for data in context.of("scan.started")] == [
        before["scan_id"],
        after["scan_id"],
    ]
    completed = context.of("scan.completed")[1]
    assert completed == {key: after[key] for key in completed}
    assert after.keys() - completed.keys() == {"diff"}
    observed = [(d["code"], d["kind"]) for d in context.of("dtc.observed")]
    assert observed == [
        ("P0301", "stored"),
        ("P0420", "stored"),
        ("U0123", "stored"),
        ("P0420", "permanent"),
        ("P0171", "stored"),
        ("P0420", "permanent"),
    ]
    # The emulator writes its log after it has answered.
    asked = {"03": 2, "07": 2, "0A": 2, "04": 1}
    await until(lambda: all(adapter.count(each) == n for each, n in asked.items()))


async def test_a_scan_tells_all_that_was_examined(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(
            says("03", *can("7E8", bytes.fromhex("43010301"))),
            says("0101", *can("7E8", bytes.fromhex("410181076504"))),
            says("020200", *can("7E8", bytes.fromhex("4202000301"))),
            says("020000", *can("7E8", bytes.fromhex("42000000100000"))),
            says("020C00", *can("7E8", bytes.fromhex("420C001AF8"))),
        )
    )
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        result = await scan(plugin, phase="pre")

    (frame,) = context.of("freeze_frame.captured")
    assert (frame["vin"], frame["code"], frame["scan_id"]) == (VIN, "P0301", result["scan_id"])
    assert [value["value"] for value in frame["values"]] == [1726]
    (snapshot,) = context.of("readiness.snapshot")
    assert [v["ready"] for v in snapshot["verdicts"]] == [True, True]
    assert context.of("scan.completed")[0]["phase"] == "pre"
    for event in ("calibration.ids", "monitor.counters", "monitor.tests"):
        (data,) = context.of(event)
        assert [(each["ecu"], each["quality"]) for each in data["ecus"]] == [("7E8", "absent")]


async def test_a_scan_says_how_well_the_vin_was_told_now(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(says("0902", *can("7E8", VIN_MESSAGE)), says("0902", "7E8 03 7F 09 22"))
    )
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        result = await scan(plugin)

    assert (result["vin"], result["vin_quality"]) == (VIN, "refused")


async def test_a_scan_lists_modules_that_do_not_answer(emulator: StartEmulator) -> None:
    adapter = await emulator(
        car(
            says("0100", *can("7E8", supporting(SUPPORTED)), *can("7E9", supporting((0x04,)))),
            says("07", *can("7E8", b"\x47\x00"), "7E9 03 7F 07 11"),
            says("0A", *can("7E8", b"\x4a\x00"), "7E9 05 4A 02 04"),
        )
    )
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        result = await scan(plugin)

    assert {module["ecu"]: module["answers"] for module in result["modules"]}["7E9"] == {
        "stored": {"quality": "absent", "codes": [], "detail": "did not answer"},
        "pending": {
            "quality": "refused",
            "codes": [],
            "detail": "NRC 0x11, service not supported",
        },
        "permanent": {
            "quality": "malformed",
            "codes": [],
            "detail": "frames are missing, repeated or cut short",
        },
    }


async def test_codes_of_a_service_that_stays_silent_are_unknown_after_a_restart(
    emulator: StartEmulator,
) -> None:
    state = MemoryState()
    adapter = await emulator(car(says("03", *can("7E8", bytes.fromhex("43010301")))))
    context = context_for(adapter.port, state=state)
    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        before = await scan(plugin)

    late = says("03", *can("7E8", b"\x43\x00"), delay_ms=300)
    adapter = await emulator(car(late))
    context = context_for(adapter.port, state=state, timeout_s=0.2)
    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        after = await scan(plugin)

    assert after["diff"]["before"] == before["scan_id"]
    assert (after["diff"]["fixed"], after["dtcs"]) == ([], [])
    assert after["diff"]["unknown"] == [
        {
            "ecu": "7E8",
            "kind": "stored",
            "quality": "absent",
            "why": "did not answer",
            "scan": "after",
            "codes": ["P0301"],
        }
    ]
    assert adapter.count("03") == 1


async def test_a_scan_of_another_car_is_told_as_the_other_cars(emulator: StartEmulator) -> None:
    other = "2D4GP00R55B123451"
    adapter = await emulator(
        car(
            says("0902", *can("7E8", VIN_MESSAGE)),
            says("0902", *can("7E8", b"\x49\x02\x01" + other.encode())),
        )
    )
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        result = await scan(plugin)
        await until(lambda: context.of("telemetry.pid")[-1]["vin"] == other)

    assert result["vin"] == other


async def test_a_car_that_came_while_the_engine_was_off_is_not_taken_for_the_last_one(
    emulator: StartEmulator,
) -> None:
    adapter = await emulator(
        car(
            says("010C", "7E8 04 41 0C 00 00"),
            says("0902", *can("7E8", VIN_MESSAGE)),
            says("0902", "NO DATA"),
        )
    )
    context = context_for(adapter.port, idle_after_s=0.1, probe_interval_s=600)

    async with plugged(context) as plugin:
        await reach(context, "connected", "engine_off")
        result = await scan(plugin)

    assert result["vin_quality"] == "absent"
    assert "vehicle_ref" not in result


async def test_a_refused_clear_fails_and_names_the_reason(emulator: StartEmulator) -> None:
    adapter = await emulator(car(says("04", "7E8 03 7F 04 22"), STANDING))
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        with pytest.raises(PluginError, match=r"7E8: NRC 0x22, conditions not correct"):
            await plugin.clear(AdapterArgs(), quiet)

    (cleared,) = context.of("dtc.cleared")
    assert cleared["outcome"] == "refused"


async def test_an_adapter_that_breaks_during_a_scan_fails_the_command(
    emulator: StartEmulator,
) -> None:
    adapter = await emulator(car(breaks_off("07", "7E8 0")))
    context = context_for(adapter.port)

    async with plugged(context) as plugin:
        await context.wait_for("adapter.state")
        with pytest.raises(PluginError, match="closed by the adapter"):
            await scan(plugin)

    assert context.of("scan.completed") == []


# -- a serial device ------------------------------------------------------------------------------


async def test_a_serial_device_works_alike(emulator: StartEmulator) -> None:
    adapter = await emulator(CAR)
    async with serial_line(adapter.port) as path:
        context = context_for(path)
        async with plugged(context):
            await context.wait_for("telemetry.pid", 4)

    assert context.of("vehicle.identified")[0]["vin"] == VIN
    assert states(context) == ["connected"]
