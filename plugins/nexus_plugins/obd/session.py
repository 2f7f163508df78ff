"""One adapter: holds it, watches for a vehicle, has its live values read, runs commands on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from nexus_agent.plugin import (
    Context,
    FatalError,
    PluginError,
    Progress,
    Quality,
    catalogue,
)
from nexus_plugins.obd import engine, pids, transport
from nexus_plugins.obd.abilities import Abilities
from nexus_plugins.obd.answer import UNKNOWN_ECU
from nexus_plugins.obd.elm327 import AdapterError, Elm327
from nexus_plugins.obd.poller import Poller
from nexus_plugins.obd.settings import AdapterSettings, ObdSettings
from nexus_plugins.obd.transport import LinkError
from nexus_plugins.obd.vehicle import NoVehicle, Vehicle, identify

_FIRST_PAUSE_S: Final = 1.0
_UNCLEAR_PAUSE_S: Final = 5.0
_GLANCE_S: Final = 0.5
"""Settings that change while it rests are seen this soon."""


class Session:
    """The adapter *name* of the settings. report: takes a few words for people."""

    def __init__(
        self, name: str, context: Context[ObdSettings], report: Callable[[str], None]
    ) -> None:
        self.name = name
        self.commanding = asyncio.Lock()
        """Held by a command from its first question to its last."""
        self._context = context
        self._report = report
        self._elm: Elm327 | None = None
        self._vehicle: Vehicle | None = None
        self._trouble = "it was not opened yet"
        self._told_state: str | None = None
        self._identifying = asyncio.Lock()
        self._shy = False

    # -- the adapter -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the adapter open; a lost or silent one is tried again after a growing pause."""
        loop = asyncio.get_running_loop()
        pause = first = min(_FIRST_PAUSE_S, self.settings.reconnect_max_s)
        while True:
            begun = loop.time()
            try:
                await self._hold()
            except LinkError as error:
                await self._lose("lost", str(error))
            except AdapterError as error:
                await self._lose(error.state, str(error))
            except FatalError as error:
                await self._lose("lost", str(error))
                raise
            longest = self.settings.reconnect_max_s
            if loop.time() - begun > longest:
                pause = first
            await asyncio.sleep(min(pause, longest))
            pause = min(2 * pause, longest)

    async def _hold(self) -> None:
        """From opening the port to its loss, which is raised as LinkError or AdapterError."""
        settings = self.settings
        async with transport.opened(
            settings.port, baudrate=settings.baudrate, within_s=settings.connect_timeout_s
        ) as link:
            elm = Elm327(
                link, timeout_s=settings.timeout_s, search_timeout_s=settings.search_timeout_s
            )
            await self._set_up(elm)
            self._elm = elm
            try:
                while True:
                    await self._attend(elm)
            finally:
                self._elm = self._vehicle = None

    async def _set_up(self, elm: Elm327) -> None:
        """Set the adapter up; one that its trials have silenced goes without them the next time."""
        try:
            await elm.set_up(find_abilities=not self._shy)
        finally:
            self._shy = elm.trying

    @property
    def settings(self) -> AdapterSettings:
        """What is in force now."""
        return self._context.settings.of(self.name)

    async def _lose(self, state: str, detail: str) -> None:
        self._trouble = detail
        await self._tell_state(state, detail)

    async def _tell_state(
        self,
        state: str,
        detail: str,
        *,
        abilities: Abilities | None = None,
        protocol: str | None = None,
    ) -> None:
        """Emit `adapter.state` when the state changes; the status shows every detail."""
        self._report(f"{state.replace('_', ' ')}: {detail}")
        if state == self._told_state:
            return
        self._told_state = state
        data: dict[str, Any] = {"adapter": self.name, "state": state, "detail": detail}
        if self._elm is not None and self._elm.version is not None:
            data["version"] = self._elm.version
        if abilities is not None:
            data["abilities"] = abilities.document()
        if protocol is not None:
            data["protocol"] = protocol
        self._context.log.info("adapter state", adapter=self.name, state=state, detail=detail)
        await self._context.emit(catalogue.vehicle.AdapterState.type, data)

    # -- the vehicle -----------------------------------------------------------------------------

    async def _attend(self, elm: Elm327) -> None:
        """Look after one vehicle from its finding until its engine starts again, or its absence."""
        self._report("looking for a vehicle")
        async with self._identifying:
            found = await self._identify(elm)
        if isinstance(found, NoVehicle):
            await self._await_vehicle(elm, found)
            return
        why = await self._poll(elm, found)
        if why is None:
            return
        # Whatever stands here when the engine starts again is identified anew.
        self._vehicle = None
        await self._tell_state("engine_off", why, abilities=elm.abilities, protocol=found.protocol)
        while not await engine.look(elm, found):
            await self._rest(elm)

    async def _await_vehicle(self, elm: Elm327, found: NoVehicle) -> None:
        await self._tell_state("no_vehicle", found.detail, abilities=elm.abilities)
        await self._rest(elm, math.inf if found.quality is Quality.ABSENT else _UNCLEAR_PAUSE_S)

    async def _rest(self, elm: Elm327, longest: float = math.inf) -> None:
        """Until the vehicle is to be asked again, by the settings of each moment, or news."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left := begun + min(longest, self.settings.probe_interval_s) - loop.time()) > 0:
            if await elm.rest(min(left, _GLANCE_S)):
                return

    async def _poll(self, elm: Elm327, vehicle: Vehicle) -> str | None:
        """Read live values until the engine is off, and say why; None if the vehicle changed."""
        car = await self.name_of(vehicle)
        poller = Poller(self.name, elm, vehicle, car, self._context, lambda: self.settings)
        headers = UNKNOWN_ECU not in vehicle.supported
        elm.abilities = elm.abilities.model_copy(
            update={"headers": headers, "batch": await poller.try_batch()}
        )
        known = f"{', '.join(vehicle.supported)}; reading every {self.settings.interval_s:g} s"
        await self._tell_state(
            "connected", known, abilities=elm.abilities, protocol=vehicle.protocol
        )
        return await poller.run(
            lambda: self._vehicle is vehicle, lambda text: self._report(f"connected: {text}")
        )

    async def _identify(self, elm: Elm327) -> Vehicle | NoVehicle:
        """Find out who is there and tell it; the caller holds the lock."""
        found = await identify(elm)
        if isinstance(found, NoVehicle):
            self._vehicle = None
            return found
        self._vehicle = found
        await self._context.emit(
            catalogue.vehicle.VehicleIdentified.type,
            {
                **await self.name_of(found),
                "adapter": self.name,
                "ecu": found.vin_ecu or next(iter(found.supported)),
                "ecus": list(found.supported),
                "protocol": found.protocol,
                "supported_pids": pids.values_only(found.all_pids),
                "quality": found.vin.quality,
                **found.said_by_vin(),
            },
        )
        return found

    async def name_of(self, vehicle: Vehicle) -> dict[str, str]:
        """How events name the vehicle; nothing where its VIN is not known."""
        number = vehicle.vin.number
        return {} if number is None else await self._context.vehicle(number)

    # -- for commands ----------------------------------------------------------------------------

    def adapter(self) -> Elm327:
        """The adapter; PluginError if it is not connected."""
        if self._elm is None:
            port = self.settings.port
            where = port if self.name == port else f"{self.name}, {port}"
            raise PluginError(f"No adapter is connected at {where}: {self._trouble}.")
        return self._elm

    async def present(self, progress: Progress) -> Vehicle:
        """The vehicle at the adapter, identified now if need be; PluginError if there is none."""
        elm = self.adapter()
        async with self._identifying:
            if self._vehicle is not None:
                return self._vehicle
            progress("looking for a vehicle")
            found = await self._identify(elm)
        if isinstance(found, NoVehicle):
            raise PluginError(f"No vehicle: {found.detail}.")
        elm.wake()
        return found

    async def present_anew(self, progress: Progress) -> Vehicle:
        """As `present`, but the vehicle is identified now in any case."""
        self._vehicle = None
        return await self.present(progress)
