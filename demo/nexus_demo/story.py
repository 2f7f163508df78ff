"""What goes on in the street: one act after another, one line each, for as long as it is watched.

At bay-1 an engine begins to misfire, is scanned, repaired, cleared and scanned again. bay-2 loses
its internet and gets it back. bay-3 loses its adapter and finds it again. At bay-4 a car is scanned
through its DoIP gateway, and in the yard a truck has faults. Commands go through the
console's API, as a person's would, and every line tells what was seen, not what was planned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from nexus_demo.api import Console
from nexus_demo.fleet import Box, DoipStation, Fleet, Say, Station, TruckStation
from nexus_demo.waiting import DemoError, NotYet, until

Act = Callable[[], Awaitable[str]]

PACE_S: Final = 20.0
"""From the end of an act to the beginning of the next."""
_CODE: Final = "P0301"
_SEEN_S: Final = 60.0
_RECOVERY_S: Final = 150.0
"""A box that was cut off waits up to about twice the outage before it connects again."""


class Story:
    """The acts of one street, in their order."""

    def __init__(self, fleet: Fleet, console: Console, say: Say, pace_s: float = PACE_S) -> None:
        self._fleet = fleet
        self._console = console
        self._say = say
        self._pace_s = pace_s
        self._engine, self._internet, self._adapter = fleet.boxes

    def acts(self) -> list[Act]:
        return [
            self.engine_stumbles,
            self.internet_goes,
            self.internet_comes_back,
            self.lamp_comes_on,
            self.pre_scan,
            self.gateway_scan,
            self.adapter_is_lost,
            self.adapter_is_found,
            self.truck_scan,
            self.repair,
            self.post_scan,
        ]

    async def tell(self) -> None:
        """Play the acts over and over. DemoError only where a part of the street has died."""
        await self._everybody_online()
        while True:
            for act in self.acts():
                await asyncio.sleep(self._pace_s)
                await self._play(act)

    async def _play(self, act: Act) -> None:
        try:
            line = await act()
        except DemoError as error:
            # Somebody may have played with the street, too: the story goes on if it still can.
            self._fleet.check()
            line = f"{act.__name__.replace('_', ' ')}: not as planned: {error}"
        self._say(line)

    # -- bay-1: an engine ------------------------------------------------------------------------

    async def engine_stumbles(self) -> str:
        box = self._engine
        box.memory.remember(pending=[_CODE])
        found = await self._scan(box)
        return f"{box.id}: the engine stumbles; a scan finds {_codes(found['dtcs'])}"

    async def lamp_comes_on(self) -> str:
        box = self._engine
        box.memory.remember(stored=[_CODE], pending=[_CODE])
        return f"{box.id}: it misfires again, and the warning lamp comes on"

    async def pre_scan(self) -> str:
        found = await self._scan(self._engine)
        return f"{self._engine.id}: the pre-scan finds {_codes(found['dtcs'])}"

    async def repair(self) -> str:
        """A new ignition coil. The car remembers the fault until somebody clears it."""
        with self._engine.engine_off():
            await self._do(self._engine, "obd.clear")
        return f"{self._engine.id}: a new ignition coil goes in, and the codes are cleared"

    async def post_scan(self) -> str:
        found = await self._scan(self._engine)
        codes = _codes(found["dtcs"])
        return f"{self._engine.id}: the post-scan finds {codes}; {_difference(found['diff'])}"

    # -- bay-2: the internet ---------------------------------------------------------------------

    async def internet_goes(self) -> str:
        box = self._internet
        await box.relay.cut()
        await until(f"the console misses {box.id}", partial(self._missed, box), within=_SEEN_S)
        return (
            f"{box.id}: the internet is gone; {await box.waiting()} events wait at the box; "
            f"the console shows it {await self._status(box)}"
        )

    async def internet_comes_back(self) -> str:
        box = self._internet
        waited = await box.waiting()
        given = {name: stream["next"] - 1 for name, stream in (await box.outbox()).items()}
        await box.relay.open()
        gaps = await until(
            f"{box.id} delivers what waited",
            partial(self._delivered, box, given),
            within=_RECOVERY_S,
        )
        return (
            f"{box.id}: the internet is back; the {waited} events that waited are in the console, "
            f"{gaps or 'no'} gaps"
        )

    # -- bay-3: the adapter ----------------------------------------------------------------------

    async def adapter_is_lost(self) -> str:
        box = self._adapter
        await box.car.stop()
        state = await until(
            f"the console hears of {box.id}'s adapter",
            partial(self._adapter_state, box, lost=True),
            within=_SEEN_S,
        )
        return f"{box.id}: the adapter is gone; the console shows it {state}"

    async def adapter_is_found(self) -> str:
        box = self._adapter
        await box.car.start()
        state = await until(
            f"{box.id} finds its adapter again",
            partial(self._adapter_state, box, lost=False),
            within=_SEEN_S,
        )
        return f"{box.id}: the adapter is back; the console shows it {state}"

    # -- bay-4: a gateway; the yard: a truck -----------------------------------------------------

    async def gateway_scan(self) -> str:
        box = self._fleet.station(DoipStation.NAME)
        found = await self._scan(box)
        silent = [
            module["ecu"]
            for module in found["modules"]
            if all(said["quality"] == "absent" for said in module["answers"].values())
        ]
        return (
            f"{box.id}: a scan through the DoIP gateway finds {_codes(found['dtcs'])}; "
            f"{', '.join(silent) or 'nobody'} did not answer"
        )

    async def truck_scan(self) -> str:
        box = self._fleet.station(TruckStation.NAME)
        found = await self._scan(box)
        return f"{box.id}: a scan of the truck finds {_codes(found['dtcs'])}"

    # -- doing and looking -----------------------------------------------------------------------

    async def _do(self, box: Station, command: str) -> Any:
        answer = await self._console.do(box.id, command)
        if answer["state"] != "succeeded":
            raise DemoError(f"{command} on {box.id} {answer['state']}: {answer['error']}")
        return answer["result"]

    async def _scan(self, box: Station) -> Any:
        return await self._do(box, "vehicle.scan")

    async def _status(self, box: Station) -> str:
        devices = await self._console.devices()
        return str(devices.get(box.id, {}).get("status", "unknown"))

    async def _everybody_online(self) -> None:
        async def online() -> None:
            for box in self._fleet.stations:
                if (status := await self._status(box)) != "online":
                    raise NotYet(f"{box.id} is {status}")

        await until("all boxes are online", online, within=_SEEN_S)
        self._say(f"online in the console: {', '.join(box.id for box in self._fleet.stations)}")

    async def _missed(self, box: Box) -> None:
        if await self._status(box) == "online":
            raise NotYet("the console still shows it online")

    async def _delivered(self, box: Box, given: dict[str, int]) -> int:
        """How many gaps the console sees, once it has all that the box had *given* out."""
        status = await self._status(box)
        streams = await self._console.delivery(box.id)
        marks = {stream["stream"]: stream["high_water"] for stream in streams}
        short = [name for name, last in given.items() if marks.get(name, 0) < last]
        if short or status != "online":
            raise NotYet(f"it is {status}; not delivered yet: {', '.join(short) or 'nothing'}")
        return sum(len(stream["gaps"]) for stream in streams)

    async def _adapter_state(self, box: Box, *, lost: bool) -> str:
        adapter = (await self._console.device(box.id))["adapter"] or {}
        state = str(adapter.get("state", "unknown"))
        if (state == "connected") is lost:
            raise NotYet(f"the console shows it {state}")
        return state


def _codes(dtcs: list[Any]) -> str:
    """Such as "P0301 stored and pending"; what a scan found of nothing is "no codes"."""
    return ", ".join(f"{dtc['code']} {' and '.join(dtc['kinds'])}" for dtc in dtcs) or "no codes"


def _difference(diff: Any) -> str:
    """Such as "fixed P0301, remaining none, permanent none, new none".

    There is none without an earlier scan.
    """
    if diff is None:
        return "there is no earlier scan to compare it with"
    return ", ".join(
        f"{word} {', '.join(item['code'] for item in diff[word]) or 'none'}"
        for word in ("fixed", "remaining", "permanent", "new")
    )
