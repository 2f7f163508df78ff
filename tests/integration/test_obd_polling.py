"""Live values: each as often as it should be, several in one question where that works."""

from __future__ import annotations

import pytest
from tests.integration.obd_adapters import (
    Adapter,
    Bits,
    Car,
    Fault,
    context_for,
    invented,
    plugged,
    until,
    values,
)

from nexus_plugins.obd import poller

FOUR = "010C0D0504"
ALONE = ("010C", "010D", "0105", "0104")


async def test_on_can_several_values_are_asked_for_in_one_question() -> None:
    adapter = Adapter()
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: len(values(context, 0x04)) >= 3)

    assert FOUR in adapter.asked
    assert set(adapter.asked).isdisjoint(ALONE)
    assert invented(context, adapter.car) == []
    assert context.of("adapter.state")[0]["abilities"]["batch"] == 4


async def test_each_control_units_values_stay_apart_in_one_question() -> None:
    adapter = Adapter(Car(ecus={"7E8": (0x0C, 0x0D), "7E9": (0x05, 0x0D)}, fixed={0x0D: b"\x32"}))
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: len(values(context, 0x05)) >= 3)

    told = {(d["ecu"], d["name"]) for d in context.of("telemetry.pid")}
    assert told == {
        ("7E8", "engine_speed"),
        ("7E8", "vehicle_speed"),
        ("7E9", "vehicle_speed"),
        ("7E9", "coolant_temperature"),
    }
    assert {d["quality"] for d in context.of("telemetry.pid")} == {"ok"}
    assert FOUR[:-2] in adapter.asked


def first_only(request: str, answer: bytes) -> Bits:
    """Clones read two bytes of a request and forget the rest."""
    return [(0, b"7E804410C1AF8\r\r>" if len(request) > 4 else answer)]


def shortened(request: str, answer: bytes) -> Bits:
    return [(0, b"7E807410C1AF80D3205\r\r>" if len(request) > 4 else answer)]


def of_another_length(request: str, answer: bytes) -> Bits:
    return [(0, b"7E805410C1A0D32\r\r>" if len(request) > 4 else answer)]


def refused(request: str, answer: bytes) -> Bits:
    return [(0, b"7E8037F0112\r\r>" if len(request) > 4 else answer)]


def unknown(request: str, answer: bytes) -> Bits:
    return [(0, b"?\r\r>" if len(request) > 4 else answer)]


def silent(request: str, answer: bytes) -> Bits:
    return [] if len(request) > 4 else [(0, answer)]


@pytest.mark.parametrize(
    "fault", [first_only, shortened, of_another_length, refused, unknown, silent]
)
async def test_where_that_does_not_work_each_value_is_asked_for_alone(fault: Fault) -> None:
    adapter = Adapter(fault=fault)
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: len(values(context, 0x04)) >= 3)

    assert [each for each in adapter.asked if each.startswith("01") and len(each) > 4] == [FOUR]
    assert context.of("adapter.state")[0]["abilities"]["batch"] == 1
    assert {d["quality"] for d in context.of("telemetry.pid")} == {"ok"}
    assert invented(context, adapter.car) == []


async def test_a_value_that_is_left_out_is_asked_for_alone_and_the_others_together() -> None:
    def only_the_engine(request: str, answer: bytes) -> Bits:
        lines = answer.split(b"\r")
        kept = [line for line in lines if len(request) == 4 or not line.startswith(b"7E9")]
        return [(0, b"\r".join(kept))]

    adapter = Adapter(Car(ecus={"7E8": (0x0C, 0x0D), "7E9": (0x05,)}), fault=only_the_engine)
    async with adapter.listening() as port:
        context = context_for(port)
        async with plugged(context):
            await until(lambda: len(values(context, 0x05)) >= 3)

    assert {"010C0D05", "010C0D", "0105"} <= set(adapter.asked)
    assert set(adapter.asked).isdisjoint({"010C", "010D"})
    assert {d["quality"] for d in context.of("telemetry.pid")} == {"ok"}


@pytest.mark.parametrize(
    ("protocol", "headers", "batch"), [("A3", True, True), ("A6", False, True), ("A6", True, False)]
)
async def test_it_is_not_tried_on_older_buses_without_headers_or_where_switched_off(
    protocol: str, headers: bool, batch: bool
) -> None:
    adapter = Adapter(headers=headers)
    adapter.known["ATDPN"] = protocol
    async with adapter.listening() as port:
        context = context_for(port, batch=batch)
        async with plugged(context):
            await until(lambda: len(values(context, 0x04)) >= 3)

    assert {len(request) for request in adapter.asked if request.startswith("01")} == {4}


async def test_slow_values_are_read_slowly_and_fast_ones_fast() -> None:
    adapter = Adapter()
    async with adapter.listening() as port:
        context = context_for(port, rates={"0x05": 600, "0x04": 0.2})
        async with plugged(context):
            await until(lambda: len(values(context, 0x0C)) >= 30)

    assert len(values(context, 0x05)) == 1
    assert 2 <= len(values(context, 0x04)) <= 10


async def test_on_a_bus_that_is_too_slow_nothing_piles_up_and_nothing_starves() -> None:
    adapter = Adapter(fault=lambda _, answer: [(0.02, answer)])
    adapter.car.batches = False
    async with adapter.listening() as port:
        context = context_for(port, interval_s=0.01, rates={"0x05": 0.1, "0x04": 0.1})
        async with plugged(context):
            await until(lambda: len(values(context, 0x04)) >= 3)
            counts = {pid: len(values(context, pid)) for pid in (0x0C, 0x0D, 0x05)}

    assert counts[0x05] >= 3
    assert abs(counts[0x0C] - counts[0x0D]) <= 1
    assert counts[0x0C] > counts[0x05]


async def test_rates_are_told_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "RATES_S", 0.5)
    adapter = Adapter(fault=lambda _, answer: [(0.005, answer)])
    async with adapter.listening() as port:
        context = context_for(port, interval_s=0.05, pids=[0x0C, 0x05], rates={"0x05": 0.2})
        async with plugged(context):
            rates = (await context.wait_for("adapter.rates", 2))[1]

    assert rates["adapter"] == port
    assert 0.5 <= rates["seconds"] < 1
    assert 0 < rates["answers"] <= rates["questions"] <= 12
    assert 5 <= rates["latency_p50"] <= rates["latency_p95"] < 300
    by_pid = {value["pid"]: value for value in rates["values"]}
    assert (by_pid[0x0C]["name"], by_pid[0x0C]["wanted"]) == ("engine_speed", 0.05)
    assert by_pid[0x0C]["achieved"] == pytest.approx(0.05, rel=0.5)
    assert by_pid[0x05]["achieved"] == pytest.approx(0.2, rel=0.5)
    assert any("questions/s, answered in" in text for text in context.reports)
