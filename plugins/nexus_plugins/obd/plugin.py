"""The plugin: holds the adapter, watches the vehicle, polls live values and runs the commands."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nexus_agent.plugin import (
    Context,
    EmitError,
    NoArgs,
    Plugin,
    PluginError,
    Progress,
    Quality,
    Safety,
    Stream,
    command,
)
from nexus_plugins.obd import pids, scan, transport
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.elm327 import AdapterError, Elm327
from nexus_plugins.obd.pids import ENGINE_SPEED, PIDS, Pid, Reading
from nexus_plugins.obd.scan import Scan
from nexus_plugins.obd.settings import ObdSettings
from nexus_plugins.obd.transport import LinkError
from nexus_plugins.obd.vehicle import NoVehicle, Vehicle, identify, read_vin

REPEAT_S: Final = 60.0
"""A value that stays absent, refused or malformed is told again this often, not every round."""

_FIRST_PAUSE_S: Final = 1.0
_UNCLEAR_PAUSE_S: Final = 5.0
_GLANCE_S: Final = 0.5
"""Settings that change while it rests are seen this soon."""


@dataclass(frozen=True, slots=True)
class _Sign:
    """One look at the engine. answer: that to PID 0C where the vehicle supports it."""

    running: bool
    answered: bool
    answer: Answer | None


class ObdPlugin(Plugin[ObdSettings]):
    """Reads one vehicle through one ELM327 adapter; see README.md for events and commands."""

    name = "obd"
    version = "1.0.0"
    description = "Reads vehicles through an ELM327 adapter: identity, live values, trouble codes."
    author = "Nexus Core"
    emits = (
        "adapter.state",
        "vehicle.identified",
        "telemetry.pid",
        "scan.started",
        "dtc.observed",
        "scan.completed",
        "scan.diff",
        "dtc.cleared",
    )
    devices = ("port",)
    settings_model = ObdSettings
    live = frozenset({"interval_s", "pids", "idle_after_s", "probe_interval_s", "reconnect_max_s"})

    def __init__(self, context: Context[ObdSettings]) -> None:
        super().__init__(context)
        self._elm: Elm327 | None = None
        self._vehicle: Vehicle | None = None
        self._trouble = "it was not opened yet"
        self._told_state: str | None = None
        self._told_bad: dict[tuple[str, int], tuple[Quality, float]] = {}
        self._dropping = False
        self._identifying = asyncio.Lock()
        self._commanding = asyncio.Lock()

    # -- the adapter -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the adapter open; a lost or silent one is tried again after a growing pause."""
        loop = asyncio.get_running_loop()
        pause = first = min(_FIRST_PAUSE_S, self.context.settings.reconnect_max_s)
        while True:
            begun = loop.time()
            try:
                await self._session()
            except LinkError as error:
                await self._lose("lost", str(error))
            except AdapterError as error:
                await self._lose(error.state, str(error))
            longest = self.context.settings.reconnect_max_s
            if loop.time() - begun > longest:
                pause = first
            await asyncio.sleep(min(pause, longest))
            pause = min(2 * pause, longest)

    async def _session(self) -> None:
        """From opening the port to its loss, which is raised as LinkError or AdapterError."""
        settings = self.context.settings
        link = await transport.connect(
            settings.port, baudrate=settings.baudrate, within_s=settings.connect_timeout_s
        )
        try:
            elm = Elm327(
                link, timeout_s=settings.timeout_s, search_timeout_s=settings.search_timeout_s
            )
            await elm.set_up()
            self._elm = elm
            while True:
                await self._attend(elm)
        finally:
            self._elm = self._vehicle = None
            link.close()

    async def _lose(self, state: str, detail: str) -> None:
        self._trouble = detail
        await self._tell_state(state, detail)

    async def _tell_state(self, state: str, detail: str, **more: str | None) -> None:
        """Emit `adapter.state` when the state changes; the status shows every detail."""
        self.context.report(f"{state.replace('_', ' ')}: {detail}")
        if state == self._told_state:
            return
        self._told_state = state
        known = {key: value for key, value in more.items() if value is not None}
        self.context.log.info("adapter state", state=state, detail=detail)
        await self.context.emit(
            "adapter.state",
            {"adapter": self.context.settings.port, "state": state, "detail": detail, **known},
        )

    # -- the vehicle -----------------------------------------------------------------------------

    async def _attend(self, elm: Elm327) -> None:
        """Look after one vehicle from its finding until its engine starts again, or its absence."""
        self.context.report("looking for a vehicle")
        async with self._identifying:
            found = await self._identify(elm)
        now = asyncio.get_running_loop().time()
        if isinstance(found, NoVehicle):
            await self._tell_state("no_vehicle", found.detail, version=elm.version)
            longest = math.inf if found.quality is Quality.ABSENT else _UNCLEAR_PAUSE_S
            await self._rest(elm, now, lambda settings: min(longest, settings.probe_interval_s))
            return
        await self._tell_state(
            "connected",
            f"{', '.join(found.supported)}; polling every {self.context.settings.interval_s:g} s",
            version=elm.version,
            protocol=found.protocol,
        )
        why = await self._poll(elm, found)
        if why is None:
            return
        # Whatever stands here when the engine starts again is identified anew.
        self._vehicle = None
        await self._tell_state("engine_off", why, version=elm.version, protocol=found.protocol)
        while not (await self._look(elm, found)).running:
            now = asyncio.get_running_loop().time()
            await self._rest(elm, now, lambda settings: settings.probe_interval_s)

    async def _identify(self, elm: Elm327) -> Vehicle | NoVehicle:
        """Find out who is there and tell it; the caller holds the lock."""
        found = await identify(elm)
        if isinstance(found, NoVehicle):
            self._vehicle = None
            return found
        self._vehicle = found
        await self.context.emit(
            "vehicle.identified",
            {
                **await self._car(found),
                "ecu": found.vin_ecu or next(iter(found.supported)),
                "ecus": list(found.supported),
                "protocol": found.protocol,
                "supported_pids": pids.values_only(found.all_pids),
                "quality": found.vin.quality,
            },
        )
        return found

    async def _car(self, vehicle: Vehicle) -> dict[str, str]:
        """How events name the vehicle; nothing where its VIN is not known."""
        return {} if vehicle.vin.number is None else await self.context.vehicle(vehicle.vin.number)

    # -- live values -----------------------------------------------------------------------------

    async def _poll(self, elm: Elm327, vehicle: Vehicle) -> str | None:
        """Read live values until the engine is off, and say why; None if the vehicle changed."""
        loop = asyncio.get_running_loop()
        car = await self._car(vehicle)
        self._told_bad.clear()
        due = alive = loop.time()
        while self._vehicle is vehicle:
            settings = self.context.settings
            wanted = [PIDS[pid] for pid in settings.pids if pid in vehicle.all_pids]
            sign = await self._look(elm, vehicle)
            answered = sign.answered
            for pid in wanted:
                if pid.number == ENGINE_SPEED and sign.answer is not None:
                    answer = sign.answer
                else:
                    answer = await elm.ask(pid.request)
                answered = answered or bool(answer.replies)
                self._tell_values(pid, answer, vehicle, car)
            now = loop.time()
            if sign.running:
                alive = now
            elif now - alive >= settings.idle_after_s:
                what = "the engine stands still" if answered else "the vehicle does not answer"
                return f"{what} since {now - alive:.0f} s"
            due = await self._rest(elm, due, lambda settings: settings.interval_s)
        return None

    async def _rest(
        self, elm: Elm327, since: float, seconds: Callable[[ObdSettings], float]
    ) -> float:
        """Until so many *seconds* after *since*, as the settings of each moment have it, or news.

        Returns that time, or the present where it is past.
        """
        loop = asyncio.get_running_loop()
        while (left := since + seconds(self.context.settings) - loop.time()) > 0:
            if await elm.rest(min(left, _GLANCE_S)):
                break
        return max(since + seconds(self.context.settings), loop.time())

    async def _look(self, elm: Elm327, vehicle: Vehicle) -> _Sign:
        """Ask one question and tell from it whether the engine runs.

        Where the vehicle has no engine speed, or will not tell it, its answering must do.
        """
        if ENGINE_SPEED not in vehicle.all_pids:
            answered = bool((await elm.ask("0100")).replies)
            return _Sign(answered, answered, None)
        pid = PIDS[ENGINE_SPEED]
        answer = await elm.ask(pid.request)
        speeds = [pids.read(pid, reply) for reply in answer.replies]
        known = [speed.value for speed in speeds if speed.value is not None]
        answered = any(speed.quality is not Quality.ABSENT for speed in speeds)
        return _Sign(any(known) if known else answered, answered, answer)

    def _tell_values(self, pid: Pid, answer: Answer, vehicle: Vehicle, car: dict[str, str]) -> None:
        """One event for each control unit that answered or should have."""
        ecus = {*vehicle.supporters(pid.number), *(reply.ecu for reply in answer.replies)}
        for ecu in sorted(ecus):
            reading = pids.read(pid, answer.of(ecu))
            if self._worth_telling(ecu, pid, reading):
                self._hand_over(car, ecu, pid, reading)

    def _worth_telling(self, ecu: str, pid: Pid, reading: Reading) -> bool:
        key, now = (ecu, pid.number), asyncio.get_running_loop().time()
        if reading.quality is Quality.OK:
            self._told_bad.pop(key, None)
            return True
        quality, told = self._told_bad.get(key, (Quality.OK, now))
        if quality is reading.quality and now - told < REPEAT_S:
            return False
        self._told_bad[key] = (reading.quality, now)
        return True

    def _hand_over(self, car: dict[str, str], ecu: str, pid: Pid, reading: Reading) -> None:
        data = {
            **car,
            "ecu": ecu,
            "pid": pid.number,
            "name": pid.name,
            "value": reading.value,
            "unit": pid.unit,
            "quality": reading.quality,
        }
        if reading.detail is not None:
            data["detail"] = reading.detail
        try:
            self.context.hand_over("telemetry.pid", data)
        except EmitError as error:
            if not self._dropping:
                self.context.log.warning("live values are not taken", reason=str(error))
            self._dropping = True
        else:
            self._dropping = False

    # -- commands --------------------------------------------------------------------------------

    @command(timeout_s=120.0)
    async def scan(self, _: NoArgs, progress: Progress) -> dict[str, Any]:
        """Read the VIN and the stored, pending and permanent trouble codes of every module."""
        async with self._commanding:
            elm = self._adapter()
            vehicle = await self._present(elm, progress)
            progress("reading the VIN")
            number, _ecu = await read_vin(elm)
            if number.quality is Quality.OK and number.number != vehicle.vin.number:
                # Another car than before, or one that has only now told who it is.
                self._vehicle = None
                vehicle = await self._present(elm, progress)
            car, scan_id = await self._car(vehicle), scan.new_id()
            await self.context.emit(
                "scan.started", {"scan_id": scan_id, **car, "reason": "command"}
            )
            key = f"scan/{car['vehicle_ref']}" if car else None
            stored = None if key is None else await self.context.state.get(key)
            previous = None if stored is None else Scan.from_state(stored)
            found = await scan.read(elm, scan_id, vehicle.supported, previous, progress)
            result, events = scan.events_of(found, previous, number.quality, car)
            await self.context.emit_many(events, stream=Stream.EVENT)
            if key is not None and found.answered:
                await self.context.state.set(key, found.to_state())
            return result

    @command(safety=Safety.CLEAR, timeout_s=60.0)
    async def clear(self, _: NoArgs, progress: Progress) -> dict[str, Any]:
        """Clear the trouble codes and the readiness monitors of every module."""
        async with self._commanding:
            elm = self._adapter()
            vehicle = await self._present(elm, progress)
            progress("clearing")
            answer = await elm.ask(scan.CLEAR)
            data = scan.cleared(answer, vehicle.supported, await self._car(vehicle))
            await self.context.emit("dtc.cleared", data)
            if data["outcome"] is Quality.OK:
                return data
            said = [f"{e['ecu']}: {e['detail']}" for e in data["ecus"] if e["detail"]]
            raise PluginError(
                f"Trouble codes are not cleared ({data['outcome']}): "
                f"{'; '.join(said) or answer.detail}."
            )

    def _adapter(self) -> Elm327:
        if self._elm is None:
            raise PluginError(
                f"No adapter is connected at {self.context.settings.port}: {self._trouble}."
            )
        return self._elm

    async def _present(self, elm: Elm327, progress: Progress) -> Vehicle:
        """The vehicle at the adapter, identified now if need be; PluginError if there is none."""
        async with self._identifying:
            if self._vehicle is not None:
                return self._vehicle
            progress("looking for a vehicle")
            found = await self._identify(elm)
        if isinstance(found, NoVehicle):
            raise PluginError(f"No vehicle: {found.detail}.")
        elm.wake()
        return found
