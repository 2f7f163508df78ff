"""Scans of a truck, most of whose control units are another implementation's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import can
import pytest
from tests.integration.j1939_truck import Hand, Unit, truck

from nexus_agent.plugin import PluginError, Quality, ScanArgs, catalogue
from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.j1939 import J1939Plugin
from nexus_plugins.j1939.identifier import (
    ACKNOWLEDGEMENT,
    ADDRESS_CLAIMED,
    COMPONENT_ID,
    DM1,
    DM2,
    DM6,
    DM28,
    GLOBAL,
    REQUEST,
    SOFTWARE_ID,
    TOLD,
    VIN,
    Identifier,
)
from nexus_plugins.j1939.settings import J1939Settings

Context = RecordingContext[J1939Settings]
Document = dict[str, Any]

NUMBER = "1M8GDM9AXKP042788"
OIL, COOLANT = (100, 1, 5), (110, 3, 2)
NO_FAULT = bytes.fromhex("00FF00000000FFFF")
OIL_FAULT = bytes.fromhex("04FF64000105FFFF")
PREVIOUS = bytes.fromhex("00FF 6E000302 64000101 BE000201")
"""DM2: SPN 110, 100 and 190."""
US = 0xF9


def engine(**answers: bytes) -> Unit:
    """A control unit that answers everything."""
    said = {
        VIN: NUMBER.encode() + b"*",
        DM2: PREVIOUS,
        DM6: bytes.fromhex("00FFBE000201FFFF"),
        DM28: NO_FAULT,
        COMPONENT_ID: b"CMMNS*6C1u17D6*79866321**",
        SOFTWARE_ID: b"\x01ENG 1.4*",
    }
    return Unit(0x00, dtcs=[OIL], answers=said)


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> str:
    return f"j1939-{request.node.name}"


@pytest.fixture
def hand(channel: str) -> Iterator[Hand]:
    with Hand(channel) as found:
        yield found


def context_for(channel: str, state: MemoryState | None = None, **given: Any) -> Context:
    settings = {"listen_s": 0.3, "answer_s": 0.2, **given}
    return Context(J1939Settings(interface="virtual", channel=channel, **settings), state=state)


@asynccontextmanager
async def driving(channel: str, *units: Unit) -> AsyncIterator[None]:
    """A truck whose control units have claimed their addresses."""
    with truck(can.Bus(interface="virtual", channel=channel), *units) as found:
        await _until(found.is_ready)
        yield


@asynccontextmanager
async def at_work(context: Context) -> AsyncIterator[J1939Plugin]:
    plugin = J1939Plugin(context)
    async with running(plugin):
        await _until(lambda: plugin._network.channel.is_open)
        yield plugin


async def scan(plugin: J1939Plugin) -> Document:
    found = await plugin.scan(ScanArgs(scan_id="one"), lambda text: None)
    catalogue.scans.Findings.model_validate(found, strict=False)
    return found


def module(findings: Document, ecu: str) -> Document:
    [found] = [each for each in findings["modules"] if each["ecu"] == ecu]
    return dict(found)


async def test_everything_that_a_control_unit_tells_is_found(channel: str) -> None:
    context = context_for(channel)
    async with at_work(context) as plugin, driving(channel, engine()):
        found = await scan(plugin)

    assert found == {
        "vehicle_ref": f"test-{NUMBER}",
        "vin": NUMBER,
        "vin_quality": "ok",
        "adapter": channel,
        "modules": [
            {
                "ecu": "J1939 00",
                "name": "CMMNS 6C1u17D6",
                "answers": {
                    "stored": {
                        "quality": "ok",
                        "codes": ["SPN 100 FMI 1", "SPN 110 FMI 3", "SPN 190 FMI 2"],
                        "detail": None,
                        "active": ["SPN 100 FMI 1"],
                    },
                    "pending": {
                        "quality": "ok",
                        "codes": ["SPN 190 FMI 2"],
                        "detail": None,
                        "active": None,
                    },
                    "permanent": {"quality": "ok", "codes": [], "detail": None, "active": None},
                },
            }
        ],
    }
    [told] = context.of("module.identity")
    values = {each["name"]: each["value"] for each in told["values"]}
    assert (told["scan_id"], told["ecu"]) == ("one", "J1939 00")
    assert values == {
        "component_make": "CMMNS",
        "component_model": "6C1u17D6",
        "component_serial_number": "79866321",
        "software_identification": "ENG 1.4",
    }


async def test_who_refuses_and_who_says_nothing_is_not_clean(channel: str) -> None:
    refusing = Unit(0x0B, function=9)
    mute = Unit(0x21, function=26, dtcs=None, mute=True)
    async with (
        at_work(context_for(channel)) as plugin,
        driving(channel, engine(), refusing, mute),
    ):
        found = await scan(plugin)

    assert [each["ecu"] for each in found["modules"]] == ["J1939 00", "J1939 0B", "J1939 21"]
    brakes, body = module(found, "J1939 0B"), module(found, "J1939 21")
    assert (brakes["name"], body["name"]) == ("brakes", "body controller")
    assert brakes["answers"]["stored"] == {
        "quality": "refused",
        "codes": [],
        "detail": "DM2: it does not have this (NACK)",
        "active": [],
    }
    assert brakes["answers"]["pending"]["quality"] == "refused"
    assert body["answers"]["stored"] == {
        "quality": "absent",
        "codes": [],
        "detail": "DM1: no answer; DM2: no answer",
        "active": None,
    }
    assert {each["quality"] for each in body["answers"].values()} == {"absent"}


async def test_who_was_in_the_vehicles_last_scan_and_is_gone_is_absent(channel: str) -> None:
    state = MemoryState()
    async with (
        at_work(context_for(channel, state)) as plugin,
        driving(channel, engine(), Unit(0x0B)),
    ):
        await scan(plugin)
    async with at_work(context_for(channel, state)) as plugin, driving(channel, engine()):
        found = await scan(plugin)

    brakes = module(found, "J1939 0B")
    assert {each["quality"] for each in brakes["answers"].values()} == {"absent"}


async def test_with_listen_only_nothing_is_sent_and_what_is_heard_is_told(
    channel: str, hand: Hand
) -> None:
    async with at_work(context_for(channel, listen_only=True)) as plugin:
        scanning = asyncio.gather(scan(plugin))
        while not scanning.done():
            hand.send(Identifier(DM1, 0x00), OIL_FAULT)
            await asyncio.sleep(0.02)

    assert hand.heard() == []
    [found] = scanning.result()
    assert module(found, "J1939 00")["answers"] == {
        "stored": {
            "quality": "absent",
            "codes": ["SPN 100 FMI 1"],
            "detail": "DM2: not heard, and not asked",
            "active": ["SPN 100 FMI 1"],
        }
    }
    assert found["vin_quality"] == "absent"


async def test_a_bus_where_nobody_speaks_is_no_clean_scan(channel: str) -> None:
    async with at_work(context_for(channel)) as plugin:
        with pytest.raises(PluginError, match="Nobody was heard"):
            await scan(plugin)


async def test_a_channel_that_is_not_open_is_named() -> None:
    plugin = J1939Plugin(context_for("closed"))

    with pytest.raises(PluginError, match="closed is not open"):
        await scan(plugin)


# -- control units of the test's own -------------------------------------------------------------


class Peer(can.Listener):
    """Answers requests to one address as a test says: pgn → frames as (identifier, data)."""

    def __init__(self, hand: Hand, address: int) -> None:
        self.hand = hand
        self.address = address
        self.frames: dict[int, list[tuple[Identifier, bytes]]] = {}
        self.asked: list[tuple[int, int]] = []

    def on_message_received(self, msg: can.Message) -> None:
        identifier = Identifier.read(msg.arbitration_id)
        if identifier.pgn != REQUEST or identifier.destination not in {self.address, GLOBAL}:
            return
        pgn = int.from_bytes(msg.data[:3], "little")
        self.asked.append((pgn, identifier.source))
        for frame in self.frames.get(pgn, []):
            self.hand.send(*frame)

    def refuse(self, control: int, pgn: int, *, asked_by: int = US, to: int = GLOBAL) -> None:
        data = bytes([control, 0xFF, 0xFF, 0xFF, asked_by]) + pgn.to_bytes(3, "little")
        self.frames[pgn] = [(Identifier(ACKNOWLEDGEMENT, self.address, to), data)]

    def tell(self, pgn: int, data: bytes) -> None:
        self.frames[pgn] = [(Identifier(pgn, self.address), data)]


@pytest.fixture
def peer(hand: Hand) -> Iterator[Peer]:
    """Tells its NAME and a DM1 without a fault, and refuses all else."""
    found = Peer(hand, 0x03)
    found.tell(ADDRESS_CLAIMED, (3 << 40).to_bytes(8, "little"))
    found.tell(DM1, NO_FAULT)
    for pgn in TOLD - {DM1}:
        found.refuse(1, pgn)
    notifier = can.Notifier(hand.bus, [found], 0.02)
    yield found
    notifier.stop()


@pytest.mark.parametrize(
    ("control", "detail"),
    [(1, "it does not have this (NACK)"), (2, "access is denied"), (3, "it cannot answer now")],
)
async def test_a_refusal_has_its_reason(
    channel: str, peer: Peer, control: int, detail: str
) -> None:
    peer.refuse(control, DM6)
    async with at_work(context_for(channel)) as plugin:
        found = await scan(plugin)

    pending = module(found, "J1939 03")["answers"]["pending"]
    assert (pending["quality"], pending["detail"]) == ("refused", f"DM6: {detail}")


async def test_a_refusal_to_another_tool_is_not_ours(channel: str, peer: Peer) -> None:
    peer.refuse(1, DM6, asked_by=0xFA)
    async with at_work(context_for(channel)) as plugin:
        found = await scan(plugin)

    assert module(found, "J1939 03")["answers"]["pending"]["quality"] == "absent"


async def test_who_does_not_answer_is_asked_twice_and_no_more(channel: str, peer: Peer) -> None:
    del peer.frames[DM2], peer.frames[DM28]
    async with at_work(context_for(channel)) as plugin:
        await scan(plugin)

    asked = [pgn for pgn, _ in peer.asked]
    assert (asked.count(DM6), asked.count(DM2), asked.count(DM28)) == (1, 2, 2)
    assert {source for _, source in peer.asked} == {US}


async def test_what_is_cut_short_is_malformed_and_keeps_what_could_be_read(
    channel: str, peer: Peer
) -> None:
    peer.tell(DM6, b"\x00\xff\x00")
    peer.tell(DM28, bytes.fromhex("00FF6E0003010102"))
    async with at_work(context_for(channel)) as plugin:
        found = await scan(plugin)

    answers = module(found, "J1939 03")["answers"]
    assert (answers["pending"]["quality"], answers["pending"]["codes"]) == ("malformed", [])
    assert answers["permanent"]["quality"] == "malformed"
    assert answers["permanent"]["codes"] == ["SPN 110 FMI 3"]


async def test_two_vins_name_no_vehicle(channel: str, peer: Peer) -> None:
    other = (b"\x20\x12\x00\x03\xff" + VIN.to_bytes(3, "little"), b"2M8GDM9AXKP042788*")
    parts = [bytes([n]) + other[1][7 * n - 7 : 7 * n].ljust(7, b"\xff") for n in (1, 2, 3)]
    peer.frames[VIN] = [
        (Identifier(0xEC00, 0x03), other[0]),
        *((Identifier(0xEB00, 0x03), part) for part in parts),
    ]
    async with at_work(context_for(channel)) as plugin, driving(channel, engine()):
        found = await scan(plugin)

    assert found["vin_quality"] == Quality.MALFORMED
    assert not {"vin", "vehicle_ref"} & found.keys()


async def test_a_tool_with_the_better_name_keeps_our_address(
    channel: str, peer: Peer, hand: Hand
) -> None:
    async with at_work(context_for(channel, listen_s=1)) as plugin:
        scanning = asyncio.gather(scan(plugin), return_exceptions=True)
        await _until(lambda: (ADDRESS_CLAIMED, US) in peer.asked)
        hand.claim(US, 1)
        async with asyncio.timeout(10):
            [error] = await scanning

    assert isinstance(error, PluginError)
    assert "address F9 has claimed it" in str(error)


async def test_an_address_that_is_spoken_from_is_not_claimed(channel: str, hand: Hand) -> None:
    async with at_work(context_for(channel)) as plugin:
        hand.send(Identifier(DM1, US), NO_FAULT)
        await _until(lambda: plugin._network.channel.is_heard(US))
        with pytest.raises(PluginError, match="set `address`"):
            await scan(plugin)

    assert hand.heard() == []


async def test_our_name_is_told_who_asks_for_it_and_kept_against_worse_ones(
    channel: str, hand: Hand, peer: Peer
) -> None:
    with Hand(channel) as witness:
        async with at_work(context_for(channel)) as plugin:
            scanning = asyncio.gather(scan(plugin))
            await _until(lambda: (ADDRESS_CLAIMED, US) in peer.asked)
            claims = [who for who in witness.heard() if _is_ours(who)]
            hand.send(Identifier(REQUEST, 0x03, GLOBAL), ADDRESS_CLAIMED.to_bytes(3, "little"))
            hand.claim(US, 2**64 - 1)
            await scanning

        again = [who for who in witness.heard() if _is_ours(who)]

    assert [len(claims), len(again)] == [1, 2]
    assert {data for _, data in again} == {claims[0][1]}


def _is_ours(frame: tuple[Identifier, bytes]) -> bool:
    return frame[0] == Identifier(ADDRESS_CLAIMED, US) and frame[1] != b"\xff" * 8


async def test_a_scan_that_is_cancelled_leaves_nothing_behind(channel: str, peer: Peer) -> None:
    async with at_work(context_for(channel, listen_s=30)) as plugin:
        async with asyncio.TaskGroup() as group:
            scanning = group.create_task(scan(plugin))
            await _until(lambda: (ADDRESS_CLAIMED, US) in peer.asked)
            scanning.cancel()
        assert plugin._network.channel.reassembly.address is None
        plugin.context.become(context_for(channel).settings)  # type: ignore[attr-defined]
        found = await scan(plugin)

    assert [each["ecu"] for each in found["modules"]] == ["J1939 03"]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
