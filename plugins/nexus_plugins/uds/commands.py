"""What the plugin's commands do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from nexus_agent.plugin import (
    Context,
    PluginError,
    Progress,
    Quality,
    ScanArgs,
    Stream,
    catalogue,
)
from nexus_plugins.uds import discovery, dtc, examination
from nexus_plugins.uds.discovery import Found
from nexus_plugins.uds.examination import DEFAULT_SESSION, EXTENDED_SESSION, Examined
from nexus_plugins.uds.privacy import Veil
from nexus_plugins.uds.session import Session
from nexus_plugins.uds.settings import UdsSettings, numbers
from nexus_plugins.uds.survey import survey
from nexus_plugins.uds.talk import Talk

_WORST_FIRST: Final = (Quality.REFUSED, Quality.MALFORMED, Quality.ABSENT, Quality.OK)

Cleared = catalogue.scans.Cleared


class UdsScanArgs(ScanArgs):
    """Arguments of `uds.scan`."""

    adapter: str | None = None
    """Only over the link of this name; otherwise over all."""


class ClearArgs(BaseModel):
    """Arguments of `uds.clear`."""

    model_config = ConfigDict(extra="forbid")

    module: str | None = None
    """Only this control unit, named as in a scan (`UDS 7E8`); otherwise all."""
    adapter: str | None = None
    """Only over the link of this name; otherwise over all."""


class IdentifyArgs(BaseModel):
    """Arguments of `uds.identify`."""

    model_config = ConfigDict(extra="forbid")

    module: str
    """The control unit, named as in a scan: `UDS 7E8`, `DoIP 1010`."""


async def scan(
    sessions: Sequence[Session],
    args: UdsScanArgs,
    context: Context[UdsSettings],
    progress: Progress,
) -> dict[str, Any]:
    """`uds.scan`. Raises PluginError."""
    scan_id = args.scan_id or uuid.uuid4().hex
    async with AsyncExitStack() as opened:
        found = await survey(sessions, context, progress, opened)
        modules = [examination.silent(ecu, why) for ecu, why in found.silent]
        targets = found.targets
        for number, (talk, target) in enumerate(targets, 1):
            progress(f"module {number} of {len(targets)}: {talk.ecu(target)}")
            examined = await _examine(talk, target, found.veil)
            modules.append(examined)
            await _tell(examined, scan_id, found.car, context)
    findings = catalogue.scans.Findings(
        **found.car,
        vin_quality=found.vin_quality,
        modules=tuple(each.document() for each in sorted(modules, key=lambda each: each.ecu)),
        adapter=sessions[0].name if len(sessions) == 1 else None,
    )
    return findings.document()


async def clear(
    sessions: Sequence[Session], args: ClearArgs, context: Context[UdsSettings], progress: Progress
) -> dict[str, Any]:
    """`uds.clear`. Raises PluginError, also where anybody has not cleared."""
    async with AsyncExitStack() as opened:
        if args.module is None:
            found = await survey(sessions, context, progress, opened)
            car, silent, targets = found.car, found.silent, found.targets
        else:
            talk, target = await _open(sessions, args.module, opened)
            car, silent = await _car_of(talk, target, context, progress), ()
            targets = ((talk, target),)
        said: list[Cleared] = []
        for number, (talk, target) in enumerate(targets, 1):
            progress(f"clearing module {number} of {len(targets)}: {talk.ecu(target)}")
            reply = await talk.ask(target, dtc.CLEAR, 0)
            said.append(Cleared(ecu=talk.ecu(target), outcome=reply.quality, detail=reply.detail))
    outcomes = [each.outcome for each in said]
    outcome = min(outcomes, key=_WORST_FIRST.index, default=Quality.ABSENT)
    said += [Cleared(ecu=ecu, outcome=Quality.ABSENT, detail=why) for ecu, why in silent]
    data = catalogue.scans.DtcCleared(**car, outcome=outcome, ecus=tuple(said)).document()
    if len(sessions) == 1:
        data["adapter"] = sessions[0].name
    await context.emit(catalogue.scans.DtcCleared.type, data)
    if outcome is Quality.OK:
        return data
    details = "; ".join(f"{each.ecu}: {each.detail}" for each in said if each.detail)
    raise PluginError(f"Trouble codes are not cleared everywhere ({outcome}): {details}.")


async def identify(
    sessions: Sequence[Session],
    args: IdentifyArgs,
    context: Context[UdsSettings],
    progress: Progress,
) -> dict[str, Any]:
    """`uds.identify`. Raises PluginError."""
    async with AsyncExitStack() as opened:
        talk, target = await _open(sessions, args.module, opened)
        found = Found([target])
        await discovery.read_vins(talk, found, progress)
        car = {} if found.vin is None else await context.vehicle(found.vin)
        veil = Veil([] if found.vin is None else [found.vin], car)
        progress(f"reading {args.module}")
        values = await examination.identify(talk.module(target), _dids(talk))
    examined = Examined(args.module, {}, veil.identifiers(values), ())
    if not examined.is_identified:
        raise PluginError(f"{args.module} does not answer: {values[0].detail}.")
    data = _identity(examined, car)
    await context.emit(catalogue.vehicle.ModuleIdentity.type, data)
    return data


async def _examine(talk: Talk, target: int, veil: Veil) -> Examined:
    module = talk.module(target)
    if talk.settings.session == "default":
        return await examination.examine(module, _dids(talk), veil)
    await talk.ask(target, EXTENDED_SESSION, 1)
    examined = await examination.examine(module, _dids(talk), veil)
    await talk.ask(target, DEFAULT_SESSION, 1)
    return examined


async def _tell(
    examined: Examined, scan_id: str, car: Mapping[str, str], context: Context[UdsSettings]
) -> None:
    about = {**car, "scan_id": scan_id}
    events: list[tuple[str, Any]] = []
    if examined.is_identified:
        identity = _identity(examined, about)
        events.append((catalogue.vehicle.ModuleIdentity.type, identity))
    events += [(catalogue.scans.DtcDetails.type, {**about, **each}) for each in examined.details]
    if events:
        await context.emit_many(events, stream=Stream.EVENT)


def _identity(examined: Examined, about: Mapping[str, str]) -> dict[str, Any]:
    values = [each.document() for each in examined.values]
    return {**about, "ecu": examined.ecu, "values": values}


async def _open(
    sessions: Sequence[Session], module: str, opened: AsyncExitStack
) -> tuple[Talk, int]:
    """The link that leads to the control unit of that name, opened, and its target there."""
    for session in sessions:
        target = session.target_of(module)
        if target is not None:
            return await opened.enter_async_context(session.opened()), target
    raise PluginError(
        f"No control unit that is asked is called {module!r}: take a name from a scan, or see "
        "`requests`, `responses` and `targets`."
    )


async def _car_of(
    talk: Talk, target: int, context: Context[UdsSettings], progress: Progress
) -> dict[str, str]:
    found = Found([target])
    await discovery.read_vins(talk, found, progress)
    return {} if found.vin is None else await context.vehicle(found.vin)


def _dids(talk: Talk) -> tuple[int, ...]:
    return numbers(talk.settings.dids, 0xFFFF)
