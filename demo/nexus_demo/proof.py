"""The steps of the smoke: what must be seen in the console, and what counts as seeing it.

Every proof comes from the console's API. A box's own socket is looked at for two things only: when
an outage has left something to deliver, and what the box gave out, to compare it with what arrived.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from nexus_demo import doip, truck
from nexus_demo.api import Console
from nexus_demo.fleet import Box, DoipStation, Fleet, Say, Station, TruckStation
from nexus_demo.waiting import DemoError, NotYet, together, until

Facts = dict[str, Any]
Step = Callable[[], Awaitable[Facts | None]]
Code = tuple[str, tuple[str, ...]]
"""A trouble code and its kinds, in order."""

OUTAGE_S: Final = 5.0
_WAITING_EVENTS: Final = 5
"""What every box must have waiting before the outage counts as one."""
_LIVE_POINTS: Final = 5
_SOON_S: Final = 30.0
_RECOVERY_S: Final = 120.0
"""After an outage boxes and console wait up to twice its length before they connect again, and what
a box sent before the console was back is sent again only after its acknowledgement is overdue."""


class Proof:
    """All steps against one fleet. A step returns what it adds to the result."""

    def __init__(self, fleet: Fleet, console: Console, say: Say) -> None:
        self._fleet = fleet
        self._console = console
        self._say = say
        self._misfire, self._clean, self._awkward = fleet.boxes

    def steps(self) -> list[Step]:
        return [
            self.boxes_online,
            self.vehicles_identified,
            self.live_values,
            self.scan_before_clear,
            self.scan_after_clear,
            self.other_scans,
            self.clear_not_allowed,
            *(self._buses() if self._fleet.others else ()),
            self.outage,
            self.everything_once,
        ]

    def _buses(self) -> tuple[Step, ...]:
        return self.modules_behind_a_gateway, self.faults_of_a_truck, self.signals_of_a_drive

    async def boxes_online(self) -> None:
        async def online() -> None:
            devices = await self._console.devices()
            away = [b.id for b in self._fleet.stations if _status(devices, b) != "online"]
            if away:
                raise NotYet(f"the console does not show {', '.join(away)} online")

        await until("all boxes are online", online, within=_RECOVERY_S)
        self._say(f"online in the console: {', '.join(box.id for box in self._fleet.stations)}")

    async def vehicles_identified(self) -> None:
        for box in self._fleet.boxes:
            vehicle = await until(
                f"{box.id} identifies its car", partial(self._vehicle, box), within=_SOON_S
            )
            expected = box.bay.vehicle.vin if box.bay.vin_leaves else None
            _same(f"VIN from {box.id}", vehicle.get("vin"), expected)
            name = f"VIN {vehicle['vin']}" if expected else "VIN kept on the box"
            self._say(f"{box.id}: {name}, reference {vehicle['vehicle_ref']}")

    async def live_values(self) -> None:
        for box in self._fleet.boxes:
            values = await until(
                f"{box.id} sends live engine speed",
                partial(self._engine_speeds, box),
                within=_SOON_S,
            )
            invented = set(values) - box.bay.vehicle.speeds()
            _same(f"engine speeds of {box.id} that its car never said", invented, set())
            latest = ", ".join(f"{value:g}" for value in values[-_LIVE_POINTS:])
            self._say(f"{box.id}: engine speed {latest} rpm")
        await until(
            f"{self._awkward.id} tells that a value is refused",
            self._refused_coolant,
            within=_SOON_S,
        )
        self._say(f"{self._awkward.id}: coolant temperature refused, and no value invented")

    async def scan_before_clear(self) -> None:
        car = self._misfire.bay.vehicle
        scan = await self._scan(self._misfire)
        for kind in ("stored", "pending", "permanent"):
            found = sorted(d["code"] for d in scan["dtcs"] if kind in d["kinds"])
            _same(f"{kind} codes before the clear", found, sorted(car.codes(kind)))
            self._say(f"{self._misfire.id}: {kind} {', '.join(found)}")

    async def scan_after_clear(self) -> None:
        box = self._misfire
        with box.engine_off():
            await self._succeed(box, "obd.clear")
        cleared = (await self._events(box, "dtc.cleared"))[-1]
        _same("outcome of the clear", cleared["outcome"], "ok")
        scan = await self._scan(box)
        diff = (await self._events(box, "scan.diff"))[-1]
        _same("the scan that the difference is for", diff["after"], scan["scan_id"])
        fixed = sorted(item["code"] for item in diff["fixed"])
        _same("fixed codes", fixed, ["P0300", "P0301", "U0123"])
        _same("remaining codes", _codes(diff["remaining"]), [])
        _same("permanent codes", _codes(diff["permanent"]), [("P0420", ("permanent",))])
        _same("new codes", _codes(diff["new"]), [("P0171", ("pending",))])
        self._say(
            f"{box.id}: cleared; fixed {', '.join(fixed)}; permanent P0420; new pending P0171"
        )

    async def other_scans(self) -> None:
        scan = await self._scan(self._clean)
        _same(f"codes of {self._clean.id}", scan["dtcs"], [])
        answered = sorted(module["ecu"] for module in scan["modules"])
        _same(f"control units of {self._clean.id}", answered, ["7E8", "7E9"])
        self._say(f"{self._clean.id}: no codes; {' and '.join(answered)} answered")
        scan = await self._scan(self._awkward)
        car = self._awkward.bay.vehicle
        _same("its stored codes", [d["code"] for d in scan["dtcs"]], car.codes("stored"))
        (module,) = scan["modules"]
        qualities = {kind: answer["quality"] for kind, answer in module["answers"].items()}
        expected = {"stored": "ok", "pending": "absent", "permanent": "refused"}
        _same(f"qualities of {self._awkward.id}", qualities, expected)
        self._say(f"{self._awkward.id}: stored P0562, pending absent, permanent refused")

    async def modules_behind_a_gateway(self) -> None:
        box = self._fleet.station(DoipStation.NAME)
        scan = await self._scan(box)
        _same("VIN over DoIP", scan["vin"], doip.VIN)
        modules = {
            module["ecu"]: {said["quality"] for said in module["answers"].values()}
            for module in scan["modules"]
        }
        silent = f"DoIP {doip.UNPLUGGED:04X}"
        expected = {f"DoIP {doip.ENGINE:04X}": {"ok"}, f"DoIP {doip.BODY:04X}": {"ok"}}
        _same("modules behind the gateway", modules, {**expected, silent: {"absent"}})
        found = {code["code"]: code["active"] for code in scan["dtcs"]}
        _same("codes behind the gateway", found, {"P0301-00": True, "P0420-00": False})
        self._say(f"{box.id}: over DoIP {', '.join(found)}; {silent} is unplugged: nobody knows")

    async def faults_of_a_truck(self) -> None:
        box = self._fleet.station(TruckStation.NAME)
        brakes = await until(
            f"{box.id} tells of its brakes", partial(self._fault, box, 789), within=_SOON_S
        )
        _same("the fault of the brakes", (brakes["fmi"], brakes["state"]), (5, "active"))
        scan = await self._scan(box)
        _same("VIN over J1939", scan["vin"], truck.VIN)
        codes = {(code["ecu"], code["code"]) for code in scan["dtcs"]}
        if ("J1939 0B", "SPN 789 FMI 5") not in codes:
            raise DemoError(f"the scan of {box.id} has {sorted(codes)}")
        self._say(f"{box.id}: {', '.join(f'{code} ({ecu})' for ecu, code in sorted(codes))}")

    async def signals_of_a_drive(self) -> None:
        box = self._fleet.station(TruckStation.NAME)
        values = await self._events(box, "telemetry.signal", more_than=5)
        speeds = [data["value"] for data in values if data["signal"] == "EngineSpeed"]
        wrong = [value for value in speeds if not 600 <= value <= 1800]
        _same("engine speeds that the drive did not have", wrong, [])
        _same("their unit", {d["unit"] for d in values if d["signal"] == "EngineSpeed"}, {"rpm"})
        self._say(f"{box.id}: a replayed drive, engine speed {speeds[-1]:g} rpm")

    async def clear_not_allowed(self) -> None:
        """A box whose settings allow reading only does not clear, whoever asks."""
        answer = await self._console.do(self._awkward.id, "obd.clear")
        _same(f"obd.clear on {self._awkward.id}", answer["state"], "rejected")
        self._say(f"{self._awkward.id}: obd.clear rejected: {answer['error']}")

    async def outage(self) -> Facts:
        """Kill the broker; while it is away, kill an agent and start it again."""
        fleet, victim = self._fleet, self._clean
        await fleet.broker.kill()
        self._say("broker killed")
        await together([asyncio.sleep(OUTAGE_S), *(_wait_for_backlog(box) for box in fleet.boxes)])
        before = await victim.outbox()
        await victim.agent.kill()
        await victim.start_agent()
        after = await victim.outbox()
        for stream, state in before.items():
            if after[stream]["next"] < state["next"]:
                raise DemoError(
                    f"{victim.id} forgot {stream} events: next was {state['next']}, "
                    f"after SIGKILL it is {after[stream]['next']}"
                )
        waiting = await victim.waiting()
        self._say(f"{victim.id} killed and started again, {waiting} events waiting")
        await fleet.broker.start()
        self._say("broker started again")
        await until("the console is well again", fleet.console_well, within=_RECOVERY_S)
        await self.boxes_online()
        return {"killed": ["broker", victim.id]}

    async def everything_once(self) -> Facts:
        """Everything that the boxes gave out until now is in the console, each event once."""
        totals: Counter[str] = Counter(events=0, gaps=0, duplicates=0, wire_duplicates=0, outbox=0)
        for box in self._fleet.boxes:
            given = {name: s["next"] - 1 for name, s in (await box.outbox()).items()}
            what = f"{box.id} delivers all it gave out"
            streams = await until(what, partial(self._delivered, box, given), within=_RECOVERY_S)
            await until(
                f"{box.id} releases it",
                partial(_released, box, given),
                within=_SOON_S,
            )
            totals["gaps"] += sum(len(stream["gaps"]) for stream in streams)
            totals["wire_duplicates"] += sum(stream["duplicates"] for stream in streams)
            counts = await self._count(box, given)
            totals.update(counts)
            shown = ", ".join(f"{name} 1-{last}" for name, last in given.items() if last)
            self._say(f"{box.id}: {shown} each once")
        _same("gaps", totals["gaps"], 0)
        _same("events that the console shows twice", totals["duplicates"], 0)
        return dict(totals)

    # -- looking ---------------------------------------------------------------------------------

    async def _vehicle(self, box: Box) -> Any:
        vehicle = (await self._console.device(box.id))["vehicle"]
        if vehicle is None or "vehicle_ref" not in vehicle:
            raise NotYet(f"the console shows {json.dumps(vehicle)}")
        return vehicle

    async def _engine_speeds(self, box: Box) -> list[float]:
        values = [
            point["value"]
            for series in await self._console.series(box.id, "engine_speed")
            for point in series["points"]
            if point["quality"] == "ok"
        ]
        if len(values) < _LIVE_POINTS or len(set(values)) < 2:
            raise NotYet(f"the console shows {values}")
        return values

    async def _refused_coolant(self) -> None:
        series = await self._console.series(self._awkward.id, "coolant_temperature")
        points = [point for one in series for point in one["points"]]
        if not points:
            raise NotYet("the console shows none")
        seen = {(point["value"], point["quality"]) for point in points}
        _same(f"coolant temperatures of {self._awkward.id}", seen, {(None, "refused")})

    async def _events(self, box: Station, event_type: str, more_than: int = 0) -> list[Any]:
        """The data of every event of one type, oldest first, once there are more than so many."""

        async def some() -> list[Any]:
            events = await self._console.events(box.id, event_type)
            if len(events) <= more_than:
                raise NotYet(f"the console has {len(events)}")
            return [event["data"] for event in events]

        return await until(f"{event_type} from {box.id}", some, within=10)

    async def _fault(self, box: Station, spn: int) -> Any:
        for event in await self._console.events(box.id, "j1939.fault"):
            if event["data"]["spn"] == spn:
                return event["data"]
        raise NotYet("the console has no such fault")

    async def _succeed(self, box: Station, command: str) -> Any:
        answer = await self._console.do(box.id, command)
        if answer["state"] != "succeeded":
            raise DemoError(f"{command} on {box.id} {answer['state']}: {answer['error']}")
        return answer["result"]

    async def _scan(self, box: Station) -> Any:
        """Scan, and return the event that tells of it."""
        before = len(await self._console.events(box.id, "scan.completed"))
        await self._succeed(box, "vehicle.scan")
        return (await self._events(box, "scan.completed", more_than=before))[-1]

    async def _delivered(self, box: Box, given: dict[str, int]) -> list[Any]:
        streams = await self._console.delivery(box.id)
        _same(f"epochs of {box.id}", sorted({s["epoch"] for s in streams}), [1])
        marks = {stream["stream"]: stream["high_water"] for stream in streams}
        short = {s: (marks.get(s, 0), last) for s, last in given.items() if marks.get(s, 0) < last}
        if short:
            raise NotYet(
                ", ".join(f"{stream} is at {at} of {last}" for stream, (at, last) in short.items())
            )
        for stream in streams:
            _same(f"losses of {box.id} {stream['stream']}", stream["losses"], [])
        return streams

    async def _count(self, box: Box, given: dict[str, int]) -> Counter[str]:
        """Page through all events and count each sequence that the box had given out."""
        seen: dict[str, Counter[int]] = {stream: Counter() for stream in given}
        for event in await self._console.events(box.id):
            if not box.bay.vin_leaves and box.bay.vehicle.vin in json.dumps(event):
                raise DemoError(f"the VIN of {box.id} left the box in a {event['type']} event")
            if event["seq"] <= given[event["stream"]]:
                seen[event["stream"]][event["seq"]] += 1
        counts: Counter[str] = Counter()
        for stream, last in given.items():
            missing = [seq for seq in range(1, last + 1) if not seen[stream][seq]]
            _same(f"sequences of {box.id} {stream} that the console lacks", missing, [])
            counts["events"] += last
            counts["duplicates"] += seen[stream].total() - len(seen[stream])
        return counts


async def _wait_for_backlog(box: Box) -> None:
    async def waiting() -> None:
        pending = await box.waiting()
        if pending < _WAITING_EVENTS:
            raise NotYet(f"{pending} events are waiting")

    await until(f"{box.id} keeps events while the broker is away", waiting, within=_SOON_S)


async def _released(box: Box, given: dict[str, int]) -> None:
    """NotYet while the box still holds something that it gave out before."""
    outbox = await box.outbox()
    kept = [name for name, last in given.items() if outbox[name]["acknowledged"] < last]
    if kept:
        raise NotYet(f"not yet acknowledged: {', '.join(kept)}")


def _status(devices: dict[str, Any], box: Station) -> str:
    return str(devices.get(box.id, {}).get("status", "unknown"))


def _codes(items: list[Any]) -> list[Code]:
    return sorted((item["code"], tuple(item["kinds"])) for item in items)


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise DemoError(f"{what}: expected {expected!r}, found {found!r}")
