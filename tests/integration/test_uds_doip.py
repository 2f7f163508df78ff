"""Whole scans through DoIP gateways: doip-server, and one that misbehaves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.uds_doip import Gateway, doip_server, free_port

from nexus_agent.plugin import PluginError
from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.uds import UdsPlugin
from nexus_plugins.uds.commands import ClearArgs, UdsScanArgs
from nexus_plugins.uds.settings import UdsSettings

VIN = "WVWZZZ1KZAW000123"
GATEWAY = {
    "3E00": "7E00",
    "22F190": "62F190" + VIN.encode().hex().upper(),
    "1902FF": "5902FF",
    "22F187": "62F187" + b"5Q0907530".hex().upper(),
}
BRAKES = {
    "3E00": "7E00",
    "22F190": "7F2231",
    "1902FF": "59020D4123450913019601",
    "1901FF": "59010D000002",
    "22F187": "7F2233",
    "1904412345FF": "5904412345090101123455",
    "190441234501": "5904412345090101123455",
    "1906412345FF": "7F1931",
    "1904130196FF": "7F1931",
    "1906130196FF": "59061301960102AABB",
    "190613019602": "59061301960102AABB",
    "14FFFFFF": "54",
}


def settings(port: int, **changes: Any) -> UdsSettings:
    usual: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "targets": ["0x1000", "0x1010", "0x1020"],
        "p2_s": 0.5,
        "ack_s": 0.3,
        "dids": [0xF187],
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


def stored(findings: dict[str, Any]) -> dict[str, tuple[str, Sequence[str]]]:
    """Control unit → quality and codes."""
    return {
        each["ecu"]: (each["answers"]["stored"]["quality"], each["answers"]["stored"]["codes"])
        for each in findings["modules"]
    }


# -- doip-server ---------------------------------------------------------------------------------


async def test_a_scan_through_doip_server(tmp_path: Path) -> None:
    modules = {0x1000: GATEWAY, 0x1010: BRAKES}
    with doip_server(tmp_path, modules) as port:
        findings, context = await scanned(settings(port))

    assert findings["vehicle_ref"] == f"test-{VIN}"
    assert stored(findings) == {
        "DoIP 1000": ("ok", []),
        "DoIP 1010": ("ok", ["C0123-45"]),
    }
    pending = findings["modules"][1]["answers"]["pending"]
    assert (pending["codes"], pending["active"]) == (["P1301-96"], ["P1301-96"])
    brakes, engine = context.of("dtc.details")
    assert brakes["snapshots"]["records"] == [{"number": 1, "identifiers": 1, "data": "123455"}]
    assert brakes["extended"]["detail"] == "NRC 0x31, request out of range"
    assert engine["extended"]["records"] == [{"number": 2, "data": "AABB"}]
    names = {each["ecu"]: each["values"][0]["value"] for each in context.of("module.identity")}
    assert names == {"DoIP 1000": "5Q0907530", "DoIP 1010": None}


async def test_a_module_that_the_gateway_takes_questions_for_is_there(tmp_path: Path) -> None:
    with doip_server(tmp_path, {0x1000: GATEWAY, 0x1010: {"3E00": None}}) as port:
        findings, _ = await scanned(settings(port))

    assert stored(findings) == {"DoIP 1000": ("ok", []), "DoIP 1010": ("absent", [])}


async def test_a_module_that_is_unplugged_is_absent(tmp_path: Path) -> None:
    state = MemoryState()
    with doip_server(tmp_path, {0x1000: GATEWAY, 0x1010: BRAKES}) as port:
        await scanned(settings(port), state)
    with doip_server(tmp_path, {0x1000: GATEWAY, 0x1010: dict.fromkeys(BRAKES)}) as port:
        findings, _ = await scanned(settings(port), state)

    assert stored(findings) == {"DoIP 1000": ("ok", []), "DoIP 1010": ("absent", [])}


async def test_a_tester_that_is_not_admitted_is_told_so(tmp_path: Path) -> None:
    with doip_server(tmp_path, {0x1000: GATEWAY}) as port:
        async with plugin(settings(port, source=0x0E77)) as (uds, _):
            with pytest.raises(PluginError, match="does not admit tester 0E77"):
                await uds.scan(UdsScanArgs(), lambda _: None)


async def test_a_gateway_is_found_by_vehicle_identification(tmp_path: Path) -> None:
    with doip_server(tmp_path, {0x1000: GATEWAY}) as port:
        wanted = settings(port, host=None, discover="127.0.0.1", targets=[0x1000])
        findings, context = await scanned(wanted)

    assert stored(findings) == {"DoIP 1000": ("ok", [])}
    assert VIN not in str(context.reports)


# -- gateways that misbehave ---------------------------------------------------------------------


def module(**answers: str | list[str]) -> Any:
    """Answers by the question's digits; everything else is refused."""

    def answer(question: bytes) -> list[bytes]:
        known: Mapping[str, str | list[str]] = {"3E00": "7E00", "1902FF": "590209", **answers}
        said = known.get(question.hex().upper(), f"7F{question[0]:02X}31")
        return [bytes.fromhex(each) for each in ([said] if isinstance(said, str) else said)]

    return answer


def faulty(code: str) -> Any:
    return module(**{"1902FF": f"590209{code}09"})


async def test_unreachable_is_a_module_and_unknown_is_none() -> None:
    gateway = Gateway({0x1000: module()}, unreachable=frozenset({0x1010}))
    async with gateway.running():
        findings, _ = await scanned(settings(gateway.port))

    assert stored(findings) == {"DoIP 1000": ("ok", []), "DoIP 1010": ("absent", [])}
    detail = findings["modules"][1]["answers"]["stored"]["detail"]
    assert detail == "the gateway: code 0x06, target unreachable"


async def test_a_gateway_that_dies_in_mid_scan_leaves_the_rest_absent() -> None:
    modules = {0x1000: faulty("030111"), 0x1010: faulty("C15587"), 0x1020: module()}
    gateway = Gateway(modules)

    def last(question: bytes) -> list[bytes]:
        if question == b"\x19\x02\xff":
            gateway.dies_at = b"\x19\x01\xff"
        answer: list[bytes] = modules[0x1010](question)
        return answer

    gateway.modules = {**modules, 0x1010: last}
    async with gateway.running():
        findings, context = await scanned(settings(gateway.port))

    assert stored(findings) == {
        "DoIP 1000": ("ok", ["P0301-11"]),
        "DoIP 1010": ("ok", ["U0155-87"]),
        "DoIP 1020": ("absent", []),
    }
    assert "the link is lost" in findings["modules"][2]["answers"]["stored"]["detail"]
    assert [each["ecu"] for each in context.of("module.identity")] == ["DoIP 1000"]


async def test_a_dropped_connection_is_opened_anew_once_for_a_question() -> None:
    gateway = Gateway({0x1000: faulty("030111")}, drops_at={b"\x19\x02\xff", b"\x22\xf1\x87"})
    async with gateway.running():
        findings, _ = await scanned(settings(gateway.port, targets=[0x1000]))

    assert stored(findings) == {"DoIP 1000": ("ok", ["P0301-11"])}
    assert gateway.connections == 4, "the probe, the scan, and twice again"


async def test_one_connection_for_each_module_where_the_gateway_insists() -> None:
    modules = {0x1000: module(), 0x1010: faulty("030111")}
    gateway = Gateway(modules, one_module=True)
    async with gateway.running():
        wanted = settings(gateway.port, targets=[0x1000, 0x1010], connection="per_module")
        findings, _ = await scanned(wanted)

    assert stored(findings) == {"DoIP 1000": ("ok", []), "DoIP 1010": ("ok", ["P0301-11"])}


async def test_an_open_link_is_kept_while_nothing_is_asked() -> None:
    """The store is slow: the gateway would close the connection after three seconds."""
    gateway = Gateway({0x1000: module()}, idle_s=3.0)

    class Slow(RecordingContext[UdsSettings]):
        async def vehicle(self, vin: str) -> dict[str, str]:
            async with asyncio.timeout(10):
                while (0x1000, b"\x3e\x80") not in gateway.asked:
                    await asyncio.sleep(0.05)
            return {"vehicle_ref": "ref"}

    gateway.modules = {0x1000: module(**{"22F190": GATEWAY["22F190"]})}
    async with gateway.running():
        context = Slow(settings(gateway.port, targets=[0x1000]))
        uds = UdsPlugin(context)
        async with running(uds):
            await context.wait_for("adapter.state")
            findings = await uds.scan(UdsScanArgs(), lambda _: None)

    assert stored(findings) == {"DoIP 1000": ("ok", [])}
    assert gateway.connections == 2, "the probe and the scan"


async def test_alive_checks_are_answered() -> None:
    gateway = Gateway({0x1000: module()})
    async with gateway.running():
        await scanned(settings(gateway.port, targets=[0x1000]))

    assert gateway.alive_checks == 1


async def test_a_gateway_that_takes_no_notice_is_not_waited_for_for_ever() -> None:
    gateway = Gateway({0x1000: module()}, unnoticed=frozenset({0x1010, 0x1011, 0x1012, 0x1013}))
    async with gateway.running():
        wanted = settings(gateway.port, targets=["0x1000", "0x1010-0x1013"])
        findings, _ = await scanned(wanted)

    assert stored(findings) == {"DoIP 1000": ("ok", [])}
    assert gateway.connections == 3, "once more, to see whether it is alive"


async def test_pending_for_ever_ends() -> None:
    waits = module(**{"1902FF": ["7F1978"] * 50})
    gateway = Gateway({0x1000: waits, 0x1010: module()})
    async with gateway.running():
        findings, _ = await scanned(settings(gateway.port, p2_star_s=0.2, pending_max_s=0.4))

    assert stored(findings) == {"DoIP 1000": ("absent", []), "DoIP 1010": ("ok", [])}


async def test_an_answer_for_somebody_else_is_no_answer() -> None:
    class Crossed(Gateway):
        def _diagnose(self, writer: asyncio.StreamWriter, target: int, question: bytes) -> bool:
            other = 0x1010 if question[0] == 0x19 else target
            return super()._diagnose(writer, other, question)

    gateway = Crossed({0x1000: module(), 0x1010: faulty("030111")})
    async with gateway.running():
        findings, _ = await scanned(settings(gateway.port, targets=[0x1000]))

    assert stored(findings)["DoIP 1000"] == ("absent", [])


async def test_a_flood_of_others_answers_is_no_answer_and_has_an_end() -> None:
    class Flooding(Gateway):
        def _diagnose(self, writer: asyncio.StreamWriter, target: int, question: bytes) -> bool:
            stays = super()._diagnose(writer, target, question)
            if question == b"\x19\x02\xff":
                others = bytes.fromhex("02FD 8001 00000006 1010 0E00 5902")
                writer.write(others * 5000)
            return stays

    gateway = Flooding({0x1000: lambda question: module()(question) if question[0] != 0x19 else []})
    async with gateway.running():
        findings, _ = await scanned(settings(gateway.port, targets=[0x1000]))

    assert stored(findings) == {"DoIP 1000": ("absent", [])}
    assert gateway.asked[-1] == (0x1000, b"\x22\xf1\x87"), "it goes on behind the flood"


async def test_a_port_that_speaks_something_else_is_no_gateway() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with plugin(settings(port)) as (uds, _):
            with pytest.raises(PluginError, match="does not speak DoIP"):
                await uds.scan(UdsScanArgs(), lambda _: None)


async def test_a_link_that_cannot_be_reached_does_not_hide_the_others() -> None:
    gateway = Gateway({0x1000: module()})
    async with gateway.running():
        links = {
            "bay": {"host": "127.0.0.1", "port": gateway.port, "targets": [0x1000]},
            "body": {"host": "127.0.0.1", "port": free_port(), "targets": [0x1000]},
        }
        wanted = UdsSettings.model_validate({"links": links, "dids": []})
        findings, context = await scanned(wanted)

    assert stored(findings) == {"DoIP 1000 bay": ("ok", []), "link body": ("absent", [])}
    states = {each["adapter"]: each["state"] for each in context.of("adapter.state")}
    assert states == {"bay": "connected", "body": "lost"}


async def test_two_cars_are_not_scanned_as_one() -> None:
    one = module(**{"22F190": GATEWAY["22F190"]})
    other = module(**{"22F190": "62F190" + b"1HGCM82633A004352".hex().upper()})
    async with Gateway({0x1000: one}).running() as first, Gateway({0x1000: other}).running() as two:
        links = {
            name: {"host": "127.0.0.1", "port": gateway.port, "targets": [0x1000]}
            for name, gateway in (("a", first), ("b", two))
        }
        async with plugin(UdsSettings.model_validate({"links": links, "dids": []})) as (uds, _):
            with pytest.raises(PluginError, match="different cars"):
                await uds.scan(UdsScanArgs(), lambda _: None)
            assert stored(await uds.scan(UdsScanArgs(adapter="b"), lambda _: None))


async def test_the_state_follows_the_gateway() -> None:
    gateway = Gateway({}, port=free_port())
    context = RecordingContext(settings(gateway.port, probe_interval_s=0.05))
    async with running(UdsPlugin(context)):
        lost = (await context.wait_for("adapter.state", 1))[-1]
        async with gateway.running():
            found = (await context.wait_for("adapter.state", 2))[-1]
        again = (await context.wait_for("adapter.state", 3))[-1]

    assert [each["state"] for each in (lost, found, again)] == ["lost", "connected", "lost"]
    assert "Connection refused" in lost["detail"]


async def test_a_host_that_swallows_everything_is_given_up_and_leaves_no_socket() -> None:
    """A full backlog: the connection is neither taken nor refused."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filler.connect(("127.0.0.1", port))
        context = RecordingContext(settings(port, connect_timeout_s=0.3))
        uds = UdsPlugin(context)
        async with running(uds):
            await context.wait_for("adapter.state")
            with pytest.raises(PluginError, match="cannot be used"):
                await uds.scan(UdsScanArgs(), lambda _: None)


async def test_clearing_goes_on_behind_a_module_that_refuses() -> None:
    gateway = Gateway({0x1000: module(), 0x1010: module(**{"14FFFFFF": "54"})})
    async with gateway.running(), plugin(settings(gateway.port)) as (uds, context):
        with pytest.raises(PluginError, match="DoIP 1000: NRC 0x31"):
            await uds.clear(ClearArgs(), lambda _: None)

    cleared = context.of("dtc.cleared")[0]["ecus"]
    assert {each["ecu"]: each["outcome"] for each in cleared} == {
        "DoIP 1000": "refused",
        "DoIP 1010": "ok",
    }
