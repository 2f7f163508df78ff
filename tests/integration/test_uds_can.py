"""Whole scans over CAN, against control units that others wrote and some that misbehave."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import can
import pytest
from tests.integration.uds_can import control_unit, single, strange_unit, threads
from uds_server import DtcDefinition, DtcSnapshot

from nexus_agent.plugin import PluginError
from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.uds import UdsPlugin
from nexus_plugins.uds.commands import ClearArgs, IdentifyArgs, UdsScanArgs
from nexus_plugins.uds.settings import UdsSettings

VIN = "1HGCM82633A004352"
ENGINE = {0xF190: VIN.encode(), 0xF187: b"06A906032HN\0", 0xF197: b"ENGINE  ", 0xF18B: b"\x20\x21"}
MISFIRE = DtcDefinition(
    0x030111,
    status=0x2F,
    snapshots=(
        DtcSnapshot(1, {0x1001: b"\x0b\xb8"}),
        DtcSnapshot(2, {0x1002: b"\x50", 0x1003: b"\x01"}),
    ),
    extended_data={1: b"\x05", 0x10: b"\x28\x00"},
)
PENDING = DtcDefinition(0xC15587, status=0x04)
UNTESTED = DtcDefinition(0x442200, status=0x50)


@pytest.fixture
def channel() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def car() -> Iterator[ExitStack]:
    """Control units that are there for the length of a test."""
    with ExitStack() as units:
        yield units


def settings(channel: str, **changes: Any) -> UdsSettings:
    usual: dict[str, Any] = {
        "channel": channel,
        "interface": "virtual",
        "requests": [0x7E0, 0x7E1],
        "p2_s": 0.5,
        "dids": [0xF187, 0xF18B, 0xF18C, 0xF197],
    }
    return UdsSettings.model_validate({**usual, **changes})


@asynccontextmanager
async def plugin(
    settings: UdsSettings, state: MemoryState | None = None
) -> AsyncIterator[tuple[UdsPlugin, RecordingContext[UdsSettings]]]:
    context = RecordingContext(settings, state=state)
    uds = UdsPlugin(context)
    async with running(uds):
        await context.wait_for("adapter.state")
        yield uds, context


async def scanned(
    settings: UdsSettings, state: MemoryState | None = None
) -> tuple[dict[str, Any], RecordingContext[UdsSettings]]:
    async with plugin(settings, state) as (uds, context):
        return await uds.scan(UdsScanArgs(scan_id="s"), lambda _: None), context


def module(findings: dict[str, Any], ecu: str) -> dict[str, Any]:
    return next(each for each in findings["modules"] if each["ecu"] == ecu)


async def test_a_scan_tells_every_module_its_codes_and_who_it_is(
    channel: str, car: ExitStack
) -> None:
    car.enter_context(control_unit(channel, 0x7E0, dids=ENGINE, dtcs=[MISFIRE, PENDING, UNTESTED]))
    car.enter_context(control_unit(channel, 0x7E1, dids={0xF187: b"\x01\x02"}))

    findings, context = await scanned(settings(channel))

    assert findings["vin_quality"] == "ok"
    assert findings["vehicle_ref"] == f"test-{VIN}"
    assert [each["ecu"] for each in findings["modules"]] == ["UDS 7E8", "UDS 7E9"]
    engine = module(findings, "UDS 7E8")
    assert engine["name"] == "ENGINE"
    assert engine["answers"] == {
        "stored": {"quality": "ok", "codes": ["P0301-11"], "active": ["P0301-11"]},
        "pending": {"quality": "ok", "codes": ["U0155-87"], "active": []},
    }
    assert module(findings, "UDS 7E9")["answers"]["stored"] == {"quality": "ok", "codes": []}
    engine_said, other_said = context.of("module.identity")
    assert {each["did"]: (each["quality"], each["value"]) for each in engine_said["values"]} == {
        "F187": ("ok", "06A906032HN"),
        "F18B": ("ok", "2021"),
        "F18C": ("refused", None),
        "F197": ("ok", "ENGINE"),
    }
    assert engine_said["values"][2]["detail"] == "NRC 0x31, request out of range"
    assert other_said["values"][0]["value"] == "0102"


async def test_what_is_kept_of_a_code_is_told_record_by_record(
    channel: str, car: ExitStack
) -> None:
    car.enter_context(control_unit(channel, 0x7E0, dtcs=[MISFIRE, PENDING]))

    _, context = await scanned(settings(channel, requests=[0x7E0], dids=[]))

    misfire, pending = context.of("dtc.details")
    assert (misfire["code"], misfire["status"]) == ("P0301-11", 0x2F)
    assert misfire["snapshots"]["records"] == [
        {"number": 1, "identifiers": 1, "data": "10010BB8"},
        {"number": 2, "identifiers": 2, "data": "100250100301"},
    ]
    assert misfire["extended"]["records"] == [
        {"number": 1, "data": "05"},
        {"number": 0x10, "data": "2800"},
    ]
    assert pending["snapshots"] == {
        "quality": "refused",
        "detail": "NRC 0x31, request out of range",
    }


async def test_the_vin_goes_nowhere_where_the_shop_keeps_it(channel: str, car: ExitStack) -> None:
    code = DtcDefinition(0x030111, status=0x09, snapshots=(DtcSnapshot(1, {0xF190: VIN.encode()}),))
    dids = {**ENGINE, 0xF18C: b"SN-" + VIN.encode()}
    car.enter_context(control_unit(channel, 0x7E0, dids=dids, dtcs=[code]))

    class Discreet(RecordingContext[UdsSettings]):
        async def vehicle(self, vin: str) -> dict[str, str]:
            return {"vehicle_ref": "ref"}

    context = Discreet(settings(channel, requests=[0x7E0]))
    uds = UdsPlugin(context)
    async with running(uds):
        findings = await uds.scan(UdsScanArgs(scan_id="s"), lambda _: None)

    assert findings["vehicle_ref"] == "ref"
    assert context.of("dtc.details")[0]["snapshots"]["records"][0]["data"] == ""
    told = str(findings) + str(context.events) + str(context.reports)
    assert VIN not in told
    assert VIN.encode().hex().upper() not in told


async def test_a_module_that_has_fallen_silent_is_listed_absent(
    channel: str, car: ExitStack
) -> None:
    state = MemoryState()
    car.enter_context(control_unit(channel, 0x7E0, dids=ENGINE))
    with control_unit(channel, 0x7E1):
        await scanned(settings(channel), state)

    findings, _ = await scanned(settings(channel), state)

    gone = module(findings, "UDS 7E9")["answers"]
    assert {kind: said["quality"] for kind, said in gone.items()} == {
        "stored": "absent",
        "pending": "absent",
    }
    assert gone["stored"]["detail"] == "it has answered before, and does not now"
    assert module(findings, "UDS 7E8")["answers"]["stored"]["quality"] == "ok"


async def test_a_bus_with_nobody_is_no_clean_car(channel: str) -> None:
    async with plugin(settings(channel, p2_s=0.05)) as (uds, _):
        with pytest.raises(PluginError, match="no control unit answers"):
            await uds.scan(UdsScanArgs(), lambda _: None)


async def test_29_bit_identifiers_and_odd_responses(channel: str, car: ExitStack) -> None:
    car.enter_context(
        control_unit(channel, 0x18DA10F1, response=0x18DAF110, is_extended=True, dtcs=[MISFIRE])
    )
    car.enter_context(control_unit(channel, 0x714, response=0x77E, dtcs=[PENDING]))
    both = {
        "long": {"channel": channel, "addressing": "29bit", "requests": [0x10]},
        "short": {"channel": channel, "requests": [0x714], "responses": {"0x714": 0x77E}},
    }

    findings, _ = await scanned(
        UdsSettings.model_validate({"interface": "virtual", "p2_s": 0.5, "links": both, "dids": []})
    )

    told = {each["ecu"]: each["answers"] for each in findings["modules"]}
    assert told["UDS 18DAF110 long"]["stored"]["codes"] == ["P0301-11"]
    assert told["UDS 77E short"]["pending"]["codes"] == ["U0155-87"]


async def test_clearing_is_told_with_each_modules_answer(channel: str, car: ExitStack) -> None:
    refuses = DtcDefinition(0x030111, status=0x09, condition=lambda: False)
    car.enter_context(control_unit(channel, 0x7E0, dids=ENGINE, dtcs=[refuses]))
    server = car.enter_context(control_unit(channel, 0x7E1, dtcs=[PENDING]))

    async with plugin(settings(channel)) as (uds, context):
        with pytest.raises(PluginError, match="UDS 7E8: NRC 0x22, conditions not correct"):
            await uds.clear(ClearArgs(), lambda _: None)
        assert (await uds.clear(ClearArgs(module="UDS 7E9"), lambda _: None))["outcome"] == "ok"

    every, one = context.of("dtc.cleared")
    assert every["outcome"] == "refused"
    assert {each["ecu"]: each["outcome"] for each in every["ecus"]} == {
        "UDS 7E8": "refused",
        "UDS 7E9": "ok",
    }
    assert [each["ecu"] for each in one["ecus"]] == ["UDS 7E9"]
    assert server.get_dtc(PENDING.identifier).status == 0


async def test_one_module_is_identified_by_its_name(channel: str, car: ExitStack) -> None:
    car.enter_context(control_unit(channel, 0x7E1, dids=ENGINE))

    async with plugin(settings(channel)) as (uds, context):
        told = await uds.identify(IdentifyArgs(module="UDS 7E9"), lambda _: None)
        with pytest.raises(PluginError, match="UDS 7E8 does not answer"):
            await uds.identify(IdentifyArgs(module="UDS 7E8"), lambda _: None)
        with pytest.raises(PluginError, match="is called 'UDS 123'"):
            await uds.identify(IdentifyArgs(module="UDS 123"), lambda _: None)

    assert told["values"][0]["value"] == "06A906032HN"
    assert told["vehicle_ref"] == f"test-{VIN}"
    assert context.of("module.identity") == [told]


# -- control units that misbehave ----------------------------------------------------------------


def present(payload: bytes) -> list[bytes] | None:
    """What all of them answer to TesterPresent, and to the question for the VIN."""
    known = {b"\x3e\x00": b"\x7e\x00", b"\x22\xf1\x90": b"\x7f\x22\x31"}
    return [single(known[payload])] if payload in known else None


def answers(told: dict[str, Any]) -> tuple[str, str | None]:
    stored = told["modules"][0]["answers"]["stored"]
    return stored["quality"], stored.get("detail")


def always(*frames: bytes) -> Any:
    return lambda payload: present(payload) or frames


@pytest.mark.parametrize(
    ("frames", "quality", "detail"),
    [
        ([], "absent", "no answer within 0.2 s"),
        ([single(b"\x7f\x19\x11")], "refused", "NRC 0x11, service not supported"),
        ([single(b"\x7f\x19\x11\x00")], "malformed", "a negative response of a wrong length"),
        ([single(b"\x59\x0a\xff")], "malformed", "only answers to other questions came"),
        ([single(b"\x62\xf1\x90\x41")], "malformed", "only answers to other questions came"),
        ([single(b"\x59\x02\xff\x03\x01")], "malformed", "the codes are not whole"),
        ([single(b"\x59")], "malformed", "an answer that is cut short"),
        (
            [b"\x10\x0b\x59\x02\xff\x03\x01\x11", b"\x22\x09\x04\x20\x00\x09\xaa\xaa"],
            "malformed",
            "an answer of which a frame is missing",
        ),
        (
            [b"\x10\x00\x00\x01\x00\x00\x59\x02"],
            "malformed",
            "an answer that is longer than 4095 bytes",
        ),
    ],
)
async def test_an_answer_that_is_none_never_becomes_a_code(
    channel: str, frames: Sequence[bytes], quality: str, detail: str
) -> None:
    with strange_unit(channel, 0x7E0, always(*frames)):
        told, context = await scanned(settings(channel, requests=[0x7E0], dids=[], p2_s=0.2))

    assert answers(told) == (quality, detail)
    assert context.of("dtc.details") == []


async def test_an_answer_that_stops_in_the_middle_is_malformed(channel: str) -> None:
    first = b"\x10\x0b\x59\x02\xff\x03\x01\x11"
    with strange_unit(channel, 0x7E0, always(first)):
        told, _ = await scanned(settings(channel, requests=[0x7E0], dids=[], p2_s=0.2))

    assert answers(told) == ("malformed", "an answer that does not come to its end")


async def test_a_stray_answer_does_not_hide_the_right_one(channel: str) -> None:
    frames = [single(b"\x62\xf1\x87\x41"), single(b"\x59\x02\x09\x03\x01\x11\x09")]
    with strange_unit(channel, 0x7E0, always(*frames)):
        told, _ = await scanned(settings(channel, requests=[0x7E0], dids=[]))

    assert told["modules"][0]["answers"]["stored"]["codes"] == ["P0301-11"]


async def test_pending_is_waited_for(channel: str) -> None:
    pending = single(b"\x7f\x19\x78")
    frames = [pending, pending, single(b"\x59\x02\x09\x03\x01\x11\x09")]
    with strange_unit(channel, 0x7E0, always(*frames)):
        told, _ = await scanned(settings(channel, requests=[0x7E0], dids=[], p2_star_s=0.5))

    assert told["modules"][0]["answers"]["stored"]["codes"] == ["P0301-11"]


async def test_pending_is_not_waited_for_for_ever(channel: str) -> None:
    """It is said again each time that it is heard, so that it never ends by itself."""
    with strange_unit(channel, 0x7E0, always(*[single(b"\x7f\x19\x78")] * 3)) as asked:
        told, _ = await scanned(settings(channel, requests=[0x7E0], p2_star_s=5, pending_max_s=0.3))

    assert answers(told)[0] == "absent"
    assert "no answer within 0.3 s (NRC 0x78" in str(answers(told)[1])
    assert asked[-1] == b"\x19\x02\xff", "nothing else is asked"


async def test_a_busy_module_is_asked_again_a_few_times(channel: str) -> None:
    left = [single(b"\x7f\x19\x21"), single(b"\x7f\x19\x21"), single(b"\x59\x02\x00")]
    with strange_unit(channel, 0x7E0, lambda payload: present(payload) or [left.pop(0)]):
        told, _ = await scanned(settings(channel, requests=[0x7E0], dids=[]))
    assert answers(told) == ("ok", None)

    with strange_unit(channel, 0x7E0, always(single(b"\x7f\x19\x21"))):
        told, _ = await scanned(settings(channel, requests=[0x7E0], dids=[]))
    assert answers(told) == ("refused", "busy until the end (NRC 0x21, busy repeat request)")


async def test_a_channel_that_goes_off_the_bus_is_told_so(channel: str) -> None:
    bus_off = can.Message(arbitration_id=0x40, is_extended_id=False, is_error_frame=True)
    with strange_unit(channel, 0x7E0, lambda payload: present(payload) or [bus_off]):
        told, context = await scanned(settings(channel, requests=[0x7E0]))

    assert answers(told)[0] == "absent"
    assert "off the bus" in str(answers(told)[1])
    assert [each["state"] for each in context.of("adapter.state")] == ["connected", "bus_off"]


async def test_a_session_is_changed_only_where_the_settings_say_so(channel: str) -> None:
    def answer(payload: bytes) -> list[bytes]:
        known = {b"\x10\x03": b"\x50\x03\x00\x32\x01\xf4", b"\x19\x02\xff": b"\x59\x02\x00"}
        return present(payload) or [single(known.get(payload, b"\x7f" + payload[:1] + b"\x11"))]

    with strange_unit(channel, 0x7E0, answer) as asked:
        await scanned(settings(channel, requests=[0x7E0]))
        plain = list(asked)
        asked.clear()
        await scanned(settings(channel, requests=[0x7E0], session="extended"))

    assert not [payload for payload in plain if payload[0] == 0x10]
    assert [payload for payload in asked if payload[0] == 0x10] == [b"\x10\x03", b"\x10\x01"]


async def test_a_cancelled_scan_asks_nothing_more_and_frees_its_thread(channel: str) -> None:
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(payload: bytes) -> list[bytes]:
        loop.call_soon_threadsafe(heard.set)
        return [single(b"\x7f" + payload[:1] + b"\x78")]

    before = threads()
    with strange_unit(channel, 0x7E0, answer) as asked:
        async with plugin(settings(channel, requests=[0x7E0])) as (uds, _):
            scan = asyncio.ensure_future(uds.scan(UdsScanArgs(), lambda _: None))  # noqa: TID251
            await heard.wait()
            begun = loop.time()
            scan.cancel()
            with pytest.raises(asyncio.CancelledError):
                await scan
            assert loop.time() - begun < 1.0
            assert asked == [b"\x3e\x00"]
    assert threads() <= before
