"""One scan of all plugins that can: what is told of it, of parts that fail, and of several cars."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from nexus_agent.manage import scan
from nexus_agent.manage.scan import Scans, WholeScanArgs
from nexus_agent.plugin import (
    CommandSpec,
    NoArgs,
    PluginError,
    Progress,
    Safety,
    ScanArgs,
    Settings,
    Stream,
)
from nexus_agent.protocol.catalogue import CATALOGUE
from nexus_agent.testing import MemoryState, RecordingContext

Part = Callable[[Any, Progress], Awaitable[Any]]
CAR = {"vehicle_ref": "v-1", "vin": "1D4GP00R55B123450"}


class AdapterArgs(ScanArgs):
    adapter: str | None = None


class Shop:
    """Plugins that find what they are told, and what they were asked with."""

    def __init__(self, *, timeout_s: float = 5.0, **parts: Part) -> None:
        self.parts = parts
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.timeout_s = timeout_s

    def find(self, name: str) -> CommandSpec | None:
        plugin, _, local = name.partition(".")
        if plugin not in self.parts:
            return None
        args: type[BaseModel] = AdapterArgs if plugin == "obd" else ScanArgs
        return CommandSpec(
            local,
            args if local == "scan" else NoArgs,
            Safety.READ,
            self.timeout_s,
            "",
            local,
            scans=local == "scan",
        )

    def scanners(self) -> dict[str, set[str]]:
        return {
            f"{plugin}.scan": {"phase", "scan_id"} | ({"adapter"} if plugin == "obd" else set())
            for plugin in self.parts
        }

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        self.asked.append((name, args.model_dump(exclude_unset=True)))
        return await self.parts[name.partition(".")[0]](args, progress)


class Bay:
    """A box's scans, and what it told."""

    def __init__(self, shop: Shop, state: MemoryState | None = None) -> None:
        self.context = RecordingContext(Settings(), state=state)
        self.shop = shop
        self.progress: list[str] = []
        self.scans = Scans(shop, self._emit, self.context.state)

    async def _emit(self, events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        for kind, _ in events:
            assert kind in CATALOGUE
        await self.context.emit_many(events, stream=stream)

    async def scan(self, **given: Any) -> dict[str, Any]:
        result: dict[str, Any] = await self.scans.whole(given, self.progress.append)
        return result


def finding(codes: Mapping[str, Sequence[str]], car: Mapping[str, str] = CAR, **more: Any) -> Part:
    async def part(_: Any, progress: Progress) -> Any:
        progress("reading")
        modules = [
            {
                "ecu": ecu,
                "answers": {"stored": {"quality": "ok", "codes": list(found)}},
            }
            for ecu, found in codes.items()
        ]
        quality = "ok" if car else "absent"
        return {**car, "vin_quality": quality, "modules": modules, **more}

    return part


def failing(text: str) -> Part:
    async def part(_: Any, __: Progress) -> Any:
        raise PluginError(text)

    return part


async def test_one_scan_tells_of_every_module_of_every_way() -> None:
    bay = Bay(Shop(obd=finding({"7E8": ["P0301"]}), uds=finding({"UDS 7E8": ["P0301-11"]}, {})))

    result = await bay.scan(phase="pre")

    (completed,) = bay.context.of("scan.completed")
    assert [module["ecu"] for module in completed["modules"]] == ["7E8", "UDS 7E8"]
    assert (completed["vin"], completed["vin_quality"], completed["phase"]) == (
        CAR["vin"],
        "ok",
        "pre",
    )
    assert completed["parts"] == [
        {"plugin": "obd", "outcome": "done"},
        {"plugin": "uds", "outcome": "done"},
    ]
    assert [(seen["ecu"], seen["code"]) for seen in bay.context.of("dtc.observed")] == [
        ("7E8", "P0301"),
        ("UDS 7E8", "P0301-11"),
    ]
    (started,) = bay.context.of("scan.started")
    assert {given["scan_id"] for _, given in bay.shop.asked} == {started["scan_id"]}
    assert result == {**completed, "diff": None}
    assert bay.progress == ["obd: reading", "uds: reading"]


async def test_a_part_that_fails_is_told_and_costs_the_others_nothing() -> None:
    bay = Bay(Shop(obd=finding({"7E8": []}), uds=failing("the gateway does not answer")))

    result = await bay.scan()

    assert result["parts"][1] == {
        "plugin": "uds",
        "outcome": "failed",
        "detail": "the gateway does not answer",
    }
    assert [module["ecu"] for module in result["modules"]] == ["7E8"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"modules": [], "vin_quality": "very good"}, "vin_quality"),
        ({"modules": [], "vin_quality": "ok", "vin": "NOT-A-VIN"}, "vin"),
        ("nothing", "cannot be read"),
    ],
)
async def test_findings_that_cannot_be_read_are_a_part_that_failed(answer: Any, why: str) -> None:
    async def part(_: Any, __: Progress) -> Any:
        return answer

    bay = Bay(Shop(obd=finding({"7E8": []}), uds=part))

    detail = (await bay.scan())["parts"][1]["detail"]

    assert why in detail
    assert "NOT-A-VIN" not in detail


async def test_a_part_that_takes_too_long_is_one_that_failed() -> None:
    async def part(_: Any, __: Progress) -> Any:
        await asyncio.Event().wait()

    bay = Bay(Shop(obd=finding({"7E8": []}), uds=part, timeout_s=0.05))

    assert (await bay.scan())["parts"][1]["detail"] == "it was not done within 0.05 s"


async def test_where_nobody_finds_anything_the_scan_fails_with_every_reason() -> None:
    bay = Bay(Shop(obd=failing("no adapter"), uds=failing("no gateway")))

    with pytest.raises(PluginError, match="obd: no adapter; uds: no gateway"):
        await bay.scan()

    assert bay.context.of("scan.completed") == []


async def test_a_box_that_cannot_scan_says_what_to_do() -> None:
    with pytest.raises(PluginError, match="enable obd, uds or j1939"):
        await Bay(Shop()).scan()


async def test_only_who_knows_adapters_is_told_which() -> None:
    bay = Bay(Shop(obd=finding({"7E8": []}, adapter="bay-2"), j1939=finding({"J1939 00": []}, {})))

    result = await bay.scan(adapter="bay-2")

    assert [given.get("adapter") for _, given in bay.shop.asked] == ["bay-2", None]
    assert result["adapter"] == "bay-2"


async def test_the_scan_of_one_plugin_is_a_scan_of_its_own() -> None:
    bay = Bay(Shop(obd=finding({"7E8": ["P0301"]}), uds=finding({"UDS 7E8": []})))

    await bay.scans.invoke("obd.scan", AdapterArgs(phase="post"), bay.progress.append)

    assert [name for name, _ in bay.shop.asked] == ["obd.scan"]
    assert bay.context.of("scan.completed")[0]["phase"] == "post"
    assert bay.progress == ["reading"]


async def test_another_command_is_the_plugins_own() -> None:
    async def part(_: Any, __: Progress) -> Any:
        return {"outcome": "ok"}

    bay = Bay(Shop(obd=part))

    assert await bay.scans.invoke("obd.clear", NoArgs(), bay.progress.append) == {"outcome": "ok"}
    assert bay.context.events == []


async def test_the_next_scan_of_a_car_says_what_has_changed_also_after_a_restart() -> None:
    state = MemoryState()
    before = await Bay(Shop(obd=finding({"7E8": ["P0301", "P0420"]})), state).scan()

    bay = Bay(Shop(obd=finding({"7E8": ["P0420"]})), state)
    after = await bay.scan()

    (diff,) = bay.context.of("scan.diff")
    assert after["diff"] == diff
    assert (diff["before"], diff["after"]) == (before["scan_id"], after["scan_id"])
    assert (diff["vin"], diff["fixed"]) == (CAR["vin"], [{"code": "P0301", "ecu": "7E8"}])


async def test_two_cars_at_one_box_are_two_scans() -> None:
    other = {"vehicle_ref": "v-2"}
    bay = Bay(
        Shop(obd=finding({"7E8": ["P0301"]}), uds=finding({"DoIP 1010": ["U0100-00"]}, other))
    )

    result = await bay.scan()

    first, second = bay.context.of("scan.completed")
    assert ([d["code"] for d in first["dtcs"]], first["vehicle_ref"]) == (["P0301"], "v-1")
    assert ([d["code"] for d in second["dtcs"]], second["vehicle_ref"]) == (["U0100-00"], "v-2")
    assert result["others"] == [{**second, "diff": None}]


async def test_a_car_that_nobody_named_is_not_compared() -> None:
    bay = Bay(Shop(obd=finding({"7E8": ["P0301"]}, {})))

    await bay.scan()

    assert (await bay.scan())["diff"] is None


async def test_the_scans_that_were_kept_first_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CARS", 3)
    state = MemoryState()
    for number in range(4):
        car = {"vehicle_ref": f"v-{number}"}
        await Bay(Shop(obd=finding({"7E8": []}, car)), state).scan()

    async def known(ref: str) -> bool:
        bay = Bay(Shop(obd=finding({"7E8": []}, {"vehicle_ref": ref})), state)
        return (await bay.scan())["diff"] is not None

    assert [await known(f"v-{number}") for number in (3, 2, 1)] == [True, True, True]
    assert not await known("v-0")


async def test_scans_that_fill_their_quota_make_room_for_the_next_one() -> None:
    state = MemoryState()
    many = {f"UDS {ecu:X}": [f"{n:040}" for n in range(300)] for ecu in range(3)}
    for number in range(40):
        result = await Bay(Shop(uds=finding(many, {"vehicle_ref": f"v-{number}"})), state).scan()

    again = await Bay(Shop(uds=finding(many, {"vehicle_ref": "v-39"})), state).scan()

    assert again["diff"]["before"] == result["scan_id"]


async def test_who_stops_waiting_ends_the_scan() -> None:
    ended, begun = asyncio.Event(), asyncio.Event()

    async def part(_: Any, __: Progress) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bay = Bay(Shop(obd=part))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bay.scan(), name="scan")
        await begun.wait()
        task.cancel()

    assert ended.is_set()
    assert bay.context.of("scan.completed") == []


def test_the_arguments_are_those_of_a_technician() -> None:
    assert set(WholeScanArgs.model_fields) == {"phase", "adapter"}
