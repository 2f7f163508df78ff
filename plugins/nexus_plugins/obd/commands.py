"""What the plugin's commands do at one adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from nexus_agent.plugin import (
    Context,
    PluginError,
    Progress,
    Quality,
    ScanArgs,
    StateError,
    Stream,
)
from nexus_plugins.obd import pids, scan
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.pids import ENGINE_SPEED, PIDS
from nexus_plugins.obd.session import Session
from nexus_plugins.obd.settings import ObdSettings
from nexus_plugins.obd.vehicle import Vehicle, read_vin

_IGNITION: Final = "codes are cleared with the ignition on and the engine off"


class AdapterArgs(BaseModel):
    """Arguments of a command that goes to one adapter."""

    model_config = ConfigDict(extra="forbid")

    adapter: str | None = None
    """Its name in the settings; may be missing where there is only one."""


class ObdScanArgs(ScanArgs):
    """Arguments of `obd.scan`."""

    adapter: str | None = None
    """Its name in the settings; may be missing where there is only one."""


async def read_codes(
    session: Session, args: ObdScanArgs, context: Context[ObdSettings], progress: Progress
) -> dict[str, Any]:
    """`obd.scan`: a document of `catalogue.scans.Findings`. Raises PluginError."""
    # Tables and decoders that a box which only watches never needs.
    from nexus_plugins.obd import examination

    elm = session.adapter()
    vehicle = await session.present(progress)
    progress("reading the VIN")
    number, _ecu = await read_vin(elm)
    if number.quality is Quality.OK and number.number != vehicle.vin.number:
        # Another car than before, or one that has only now told who it is.
        vehicle = await session.present_anew(progress)
    car = await session.name_of(vehicle)
    key = f"ecus/{car['vehicle_ref']}" if car else None
    before = [] if key is None else await context.state.get(key) or []
    # The scan says how well the VIN was told now, not when the vehicle was identified.
    told = replace(vehicle, vin=replace(vehicle.vin, quality=number.quality, detail=number.detail))
    outcome = await examination.full(elm, told, before, progress, {"scan_id": args.scan_id, **car})
    await context.emit_many(outcome.events, stream=Stream.EVENT)
    if key is not None:
        await _remember(context, key, sorted({*before, *outcome.answered}))
    return {**car, "adapter": session.name, **outcome.findings}


async def _remember(context: Context[ObdSettings], key: str, ecus: list[str]) -> None:
    """Keep who has ever answered, so that who is silent another time is missed."""
    try:
        await context.state.set(key, ecus)
    except StateError as error:
        context.log.warning("modules not kept", reason=str(error))


async def clear_codes(
    session: Session, context: Context[ObdSettings], progress: Progress
) -> dict[str, Any]:
    """`obd.clear`. Raises PluginError.

    SAE J1979 section 6.4: control units respond to service 04 with the ignition on and the engine
    not running; some do it at other times too, and those that do not refuse it with NRC 22.
    """
    elm = session.adapter()
    vehicle = await session.present(progress)
    if session.settings.clear_engine_off:
        progress("reading the engine speed")
        await _check_engine(elm, vehicle)
    progress("clearing")
    answer = await elm.ask(scan.CLEAR)
    car = await session.name_of(vehicle)
    data = {**scan.cleared(answer, vehicle.supported, car), "adapter": session.name}
    await context.emit("dtc.cleared", data)
    if data["outcome"] is Quality.OK:
        return data
    said = [f"{e['ecu']}: {e['detail']}" for e in data["ecus"] if e["detail"]]
    raise PluginError(
        f"Trouble codes are not cleared ({data['outcome']}): {'; '.join(said) or answer.detail}."
    )


async def _check_engine(elm: Elm327, vehicle: Vehicle) -> None:
    """Raise PluginError unless the engine stands: one that runs loses what it has learnt."""
    if ENGINE_SPEED not in vehicle.all_pids:
        raise PluginError(
            f"Nothing was cleared: the vehicle has no engine speed to tell, and {_IGNITION}."
        )
    pid = PIDS[ENGINE_SPEED]
    answer = await elm.ask(pid.request)
    ecus = {*vehicle.supporters(pid.number), *(reply.ecu for reply in answer.replies)}
    speeds = {ecu: pids.read(pid, answer.of(ecu)) for ecu in sorted(ecus)}
    unclear = [f"{ecu}: {speed.detail}" for ecu, speed in speeds.items() if speed.value is None]
    if unclear:
        raise PluginError(
            f"Nothing was cleared: whether the engine runs cannot be told ({'; '.join(unclear)}), "
            f"and {_IGNITION}."
        )
    fastest = max(float(speed.value or 0) for speed in speeds.values())
    if fastest > 0:
        raise PluginError(
            f"Nothing was cleared: the engine runs at {fastest:g} rpm, and {_IGNITION}."
        )
