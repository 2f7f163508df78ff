"""What an adapter claims and can do, several adapters on one box, and the commands' adapter."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from tests.integration.obd_adapters import (
    KNOWN,
    VIN,
    Adapter,
    Bits,
    Car,
    Context,
    context_for,
    invented,
    plugged,
    states,
    until,
    values,
)
from tests.integration.scanning import scan

from nexus_agent.plugin import FatalError, PluginError
from nexus_plugins.obd import ObdPlugin
from nexus_plugins.obd.commands import AdapterArgs

PROBES = ("AT@1", "ATRV", "ATPPS", "ATAT1", "ATIGN", "ATCEA", "ATCSM1", "ATAMC")


def quiet(_: str) -> None:
    """Progress that nobody looks at."""


def without(*commands: str) -> dict[str, str]:
    return {command: says for command, says in KNOWN.items() if command not in commands}


async def abilities_of(adapter: Adapter) -> dict[str, Any]:
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            (told,) = await context.wait_for("adapter.state")
            found: dict[str, Any] = told["abilities"]
    return found


# -- adapters that lie ----------------------------------------------------------------------------


async def test_a_genuine_adapter_is_told_so() -> None:
    assert await abilities_of(Adapter()) == {
        "claims": "ELM327 v2.1",
        "genuine": True,
        "lacks": [],
        "headers": True,
        "batch": 4,
        "voltage": True,
    }


@pytest.mark.parametrize(
    ("version", "known", "genuine", "lacks"),
    [
        ("ELM327 v2.1", without("ATPPS", "ATCSM1"), False, ["ATPPS", "ATCSM1"]),
        ("ELM327 v2.1", without("ATAMC"), False, ["ATAMC"]),
        ("ELM327 v1.4", without("ATAMC", "ATCSM1"), True, []),
        ("ELM327 v1.4b", without("ATAMC", "ATCSM1"), False, ["ATCSM1"]),
        ("ELM327 v1.3a", without("ATIGN", "ATCEA", "ATCSM1", "ATAMC"), True, []),
        ("ELM327 v1.5", KNOWN, False, []),
        (
            "ELM327 v2.1",
            dict.fromkeys(KNOWN, "OK"),
            False,
            ["AT@1", "ATRV", "ATPPS", "ATIGN", "ATAMC"],
        ),
        ("Bay 7 reader", KNOWN, None, []),
    ],
)
async def test_what_it_claims_is_held_against_what_it_knows(
    version: str, known: dict[str, str], genuine: bool | None, lacks: list[str]
) -> None:
    found = await abilities_of(Adapter(version=version, known=dict(known)))

    assert (found["claims"], found["genuine"], found["lacks"]) == (version, genuine, lacks)


async def test_an_stn_chip_names_itself_too() -> None:
    adapter = Adapter(version="ELM327 v1.4b", known={**KNOWN, "STI": "STN2120 v5.6.5"})

    found = await abilities_of(adapter)

    assert (found["claims"], found["genuine"]) == ("ELM327 v1.4b, STN2120 v5.6.5", True)


async def test_nothing_is_written_to_the_adapters_memory() -> None:
    adapter = Adapter()
    await abilities_of(adapter)

    commands = {each for each in adapter.asked if not each[:1].isdigit()}
    assert commands == {"ATZ", "ATE0", "ATL0", "ATS0", "ATH1", "ATSP0", "ATDPN", "STI", *PROBES}


async def test_without_headers_values_are_of_an_unknown_control_unit() -> None:
    adapter = Adapter(headers=False, known=without("ATH1"))
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: bool(values(context, 0x04)))

    assert context.of("adapter.state")[0]["abilities"]["headers"] is False
    assert {data["ecu"] for data in context.of("telemetry.pid")} == {"unknown"}
    assert invented(context, adapter.car) == []


async def test_an_adapter_that_a_trial_silences_is_used_without_trials() -> None:
    class Fragile(Adapter):
        """Says nothing any more, on that connection, once it was asked for ATPPS."""

        stuck = 0

        def bits(self, request: str) -> Bits:
            if request == "ATPPS":
                self.asked.append(request)
                self.stuck = self.connections
            return [] if self.stuck == self.connections else super().bits(request)

    adapter = Fragile()
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: bool(values(context, 0x0C)))

    assert states(context) == ["silent", "connected"]
    assert context.of("adapter.state")[1]["abilities"].get("genuine") is None
    assert adapter.asked.count("ATPPS") == 1


async def test_a_command_that_it_leaves_unanswered_ends_the_trials_and_nothing_else() -> None:
    class Mute(Adapter):
        def bits(self, request: str) -> Bits:
            return [] if request == "ATPPS" else super().bits(request)

    adapter = Mute()
    found = await abilities_of(adapter)

    assert (found["genuine"], found["lacks"], found["batch"]) == (False, ["ATPPS"], 4)
    assert "ATIGN" not in adapter.asked


# -- what is accepted -----------------------------------------------------------------------------


def lower(_: str, answer: bytes) -> Bits:
    return [(0, answer.lower())]


def line_feeds(_: str, answer: bytes) -> Bits:
    return [(0, answer.replace(b"\r", b"\r\n"))]


def searching(request: str, answer: bytes) -> Bits:
    return [(0, b"SEARCHING..." + answer if request == "0100" else answer)]


@pytest.mark.parametrize("fault", [lower, line_feeds, searching], ids=lambda each: each.__name__)
async def test_other_spellings_are_understood(fault: Any) -> None:
    adapter = Adapter(fault=fault, echo=True)
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: len(values(context, 0x04)) >= 2)

    assert invented(context, adapter.car) == []
    assert context.of("vehicle.identified")[0]["vin"] == VIN


# -- several adapters -----------------------------------------------------------------------------


def several(**ports: str) -> Context:
    return context_for(None, adapters={name: {"port": port} for name, port in ports.items()})


async def test_each_adapter_reads_its_own_car() -> None:
    one, two = Adapter(Car(fixed={0x0D: b"\x01"})), Adapter(Car(fixed={0x0D: b"\x02"}))
    async with one.listening() as first, two.wired() as second:
        context = several(one=first, two=second)
        async with plugged(context):
            await until(lambda: {"one", "two"} == {d["adapter"] for d in speeds(context)})
            assert context.reports[-1].startswith("one: ")
            assert "; two: " in context.reports[-1]

    assert {(d["adapter"], d["value"]) for d in speeds(context)} == {("one", 1), ("two", 2)}
    assert {d["adapter"] for d in context.of("vehicle.identified")} == {"one", "two"}


def speeds(context: Context) -> list[Any]:
    return [data for data in context.of("telemetry.pid") if data["pid"] == 0x0D]


async def test_a_broken_adapter_does_not_disturb_another() -> None:
    mute = Adapter(known={}, fault=lambda *_: [])
    good = Adapter()
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(each.listening()) for each in (mute, good)]
        context = several(mute=ports[0], good=ports[1], gone="/dev/ttyNone")
        async with plugged(context):
            await until(lambda: {"silent", "lost"} <= set(states(context)))
            await until(lambda: len(values(context, 0x0C)) >= 20)

    assert states(context, "good") == ["connected"]
    assert states(context, "gone") == ["lost"]
    assert good.connections == 1


async def test_commands_say_which_adapters_there_are() -> None:
    one, two = Adapter(), Adapter()
    async with one.listening() as first, two.listening() as second:
        context = several(one=first, two=second)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state", 2)
            with pytest.raises(PluginError, match=r"Say which adapter .*; there are one, two"):
                await scan(plugin)
            with pytest.raises(PluginError, match="no adapter 'three'; there is one, two"):
                await scan(plugin, adapter="three")
            await scan(plugin, adapter="two", phase="pre")

    assert "03" not in one.asked
    assert "03" in two.asked
    (completed,) = context.of("scan.completed")
    assert (completed["adapter"], completed["phase"]) == ("two", "pre")


async def test_the_only_adapter_of_a_table_need_not_be_named() -> None:
    adapter = Adapter()
    async with adapter.listening() as port:
        context = several(one=port)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state")
            await scan(plugin)

    assert context.of("scan.completed")[0]["adapter"] == "one"


async def test_a_missing_extra_ends_the_plugin_only_where_there_is_nothing_else_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serialx", None)
    context = context_for("/dev/ttyUSB0")
    with pytest.raises(FatalError, match=r"install nexus-core-agent\[obd\]"):
        await ObdPlugin(context).run()

    async with Adapter().listening() as port:
        context = several(serial="/dev/ttyUSB0", tcp=port)
        async with plugged(context):
            await until(lambda: bool(values(context, 0x0C)))
    assert "needs the extra" in str(context.reports) or "need the extra" in str(context.reports)


# -- clearing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "reason"),
    [
        (b"\x0b\xb8", "the engine runs at 750 rpm"),
        (b"\x00\x01", "the engine runs at 0.25 rpm"),
        (b"", "cannot be told"),
    ],
)
async def test_nothing_is_cleared_unless_the_engine_stands(speed: bytes, reason: str) -> None:
    adapter = Adapter(Car(fixed={0x0C: speed}))
    async with adapter.listening() as port:
        context = context_for(port, clear_engine_off=True)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state")
            with pytest.raises(PluginError, match=f"Nothing was cleared: .*{reason}"):
                await plugin.clear(AdapterArgs(), quiet)

    assert "04" not in adapter.asked
    assert context.of("dtc.cleared") == []


async def test_one_control_unit_that_does_not_tell_is_enough_not_to_clear() -> None:
    def half(request: str, answer: bytes) -> Bits:
        return [(0, answer.replace(b"7E904410C0000", b"7E9037F0122"))]

    car = Car(ecus={"7E8": (0x0C,), "7E9": (0x0C,)}, fixed={0x0C: b"\0\0"})
    adapter = Adapter(car, fault=half)
    async with adapter.listening() as port:
        context = context_for(port, clear_engine_off=True)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state")
            with pytest.raises(PluginError, match=r"cannot be told \(7E9: NRC 0x22"):
                await plugin.clear(AdapterArgs(), quiet)

    assert "04" not in adapter.asked


async def test_a_vehicle_without_an_engine_speed_is_not_cleared() -> None:
    adapter = Adapter(Car(ecus={"7E8": (0x0D,)}))
    async with adapter.listening() as port:
        context = context_for(port, clear_engine_off=True)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state")
            with pytest.raises(PluginError, match="no engine speed to tell"):
                await plugin.clear(AdapterArgs(), quiet)

    assert "04" not in adapter.asked


async def test_the_engine_speed_is_asked_right_before_the_clear() -> None:
    adapter = Adapter(Car(fixed={0x0C: b"\0\0"}))
    async with adapter.listening() as port:
        context = context_for(port, interval_s=600, rates={}, clear_engine_off=True)
        async with plugged(context) as plugin:
            await until(lambda: bool(context.of("telemetry.pid")))
            result = await plugin.clear(AdapterArgs(), quiet)

    assert adapter.asked[-2:] == ["010C", "04"]
    assert (result["outcome"], result["adapter"]) == ("ok", port)


async def test_control_units_judge_the_conditions_unless_the_shop_wants_the_engine_off() -> None:
    adapter = Adapter(Car(fixed={0x0C: b"\x0b\xb8"}))
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context) as plugin:
            await context.wait_for("adapter.state")
            result = await plugin.clear(AdapterArgs(), quiet)

    assert result["outcome"] == "ok"


# -- privacy --------------------------------------------------------------------------------------


async def test_the_vin_is_in_no_log_report_or_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    adapter = Adapter()
    with structlog.testing.capture_logs() as logs:
        async with adapter.wired() as port:
            context = context_for(port)
            async with plugged(context) as plugin:
                await until(lambda: bool(values(context, 0x0C)))
                sessions = repr([vars(each) for each in plugin._sessions.values()])
    said = " ".join([str(logs), caplog.text, str(context.reports), sessions])

    # The event loop's own debug lines name the test, its port and nothing that was said.
    assert VIN not in said
    assert VIN.encode().hex().upper()[:12] not in said.upper()
    await asyncio.sleep(0)
