"""`j1939.scan`: who is there, and which codes each of them has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final

from nexus_agent.plugin import PluginError, Progress, Quality, ScanArgs, catalogue
from nexus_plugins.j1939 import dm, identity
from nexus_plugins.j1939.identifier import (
    COMPONENT_ID,
    DM1,
    DM2,
    DM6,
    DM28,
    NULL,
    SOFTWARE_ID,
    VIN,
    ecu_of,
)
from nexus_plugins.j1939.inquiry import Inquiry
from nexus_plugins.j1939.network import Network

Codes = catalogue.scans.Codes
Module = catalogue.scans.Module
Findings = catalogue.scans.Findings

KINDS: Final = {
    "stored": {DM1: "DM1", DM2: "DM2"},
    "pending": {DM6: "DM6"},
    "permanent": {DM28: "DM28"},
}
"""Kind of codes → the messages that have them: what is active or was is stored."""
_IDENTITY: Final = {COMPONENT_ID: "component identification", SOFTWARE_ID: "software"}
_TRIES: Final = 2
_WORST_FIRST: Final = (Quality.MALFORMED, Quality.REFUSED, Quality.ABSENT, Quality.OK)
_STATE: Final = "vehicles"
_VEHICLES: Final = 500
"""Vehicles whose control units are remembered, the latest."""


async def scan(network: Network, args: ScanArgs, progress: Progress) -> dict[str, Any]:
    """The `Findings` of one scan as a document. Raises PluginError where nobody is there."""
    settings, begun = network.context.settings, time.monotonic()
    inquiry = Inquiry(network, settings.address)
    with network.listening(inquiry.hear):
        if settings.listen_only:
            await _listen(network, progress)
            seen = await _Round(network, inquiry, begun).finish()
        else:
            async with inquiry.seated():
                await inquiry.call()
                await _listen(network, progress)
                seen = await _Round(network, inquiry, begun).ask(progress)
    await seen.tell_identities(args.scan_id)
    return seen.findings().document()


async def _listen(network: Network, progress: Progress) -> None:
    seconds = network.context.settings.listen_s
    progress(f"listening for {seconds:g} s")
    await asyncio.sleep(seconds)
    if not network.present():
        raise PluginError(
            f"Nobody was heard at {network.channel.name} ({network.channel.detail}): is the "
            "ignition on?"
        )


class _Round:
    """The control units of one scan. begun: when it began; who was not heard since is away."""

    def __init__(self, network: Network, inquiry: Inquiry, begun: float) -> None:
        self._network = network
        self._context = network.context
        self._inquiry = inquiry
        self._begun = begun
        self._sources: set[int] = set(network.present())
        self._car: dict[str, str] = {}
        self._vin_quality = Quality.ABSENT

    async def ask(self, progress: Progress) -> _Round:
        """Ask everybody for everything; who is away is asked for DM1 only."""
        inquiry = self._inquiry
        progress("asking for the VIN")
        await inquiry.ask(VIN, self._awake())
        await self._identify()
        progress(f"asking {len(self._sources)} control units for their codes")
        await inquiry.ask(DM1, self._asked(), tries=_TRIES)
        for messages in KINDS.values():
            for pgn, name in messages.items():
                progress(f"asking for {name}")
                await inquiry.ask(pgn, self._awake(), tries=_TRIES)
        for pgn, name in _IDENTITY.items():
            progress(f"asking for the {name}")
            await inquiry.ask(pgn, self._awake())
        return await self.finish()

    async def finish(self) -> _Round:
        """Note who is there, for the vehicle's next scan."""
        await self._identify()
        self._sources |= self._network.present()
        reference = self._car.get("vehicle_ref")
        if reference is not None:
            known = await self._known_vehicles()
            known.pop(reference, None)
            # Who is away now is missed again the next time.
            known[reference] = sorted(self._asked())
            latest = dict(list(known.items())[-_VEHICLES:])
            await self._context.state.set(_STATE, latest)
        return self

    async def _identify(self) -> None:
        """Learn the vehicle's name, and with it who was in its last scan."""
        found: list[Quality] = []
        numbers: set[str] = set()
        for source in self._sources:
            answer = self._inquiry.of(source, VIN)
            told = identity.vin(answer.data)
            found.append(told.quality if answer.quality is Quality.OK else answer.quality)
            if told.number is not None:
                numbers.add(told.number)
        if len(numbers) > 1:
            self._vin_quality = Quality.MALFORMED
        elif numbers:
            self._vin_quality = Quality.OK
            self._car = await self._context.vehicle(numbers.pop())
            known = await self._known_vehicles()
            self._sources |= set(known.get(self._car["vehicle_ref"], ()))
        else:
            self._vin_quality = min(found, key=_WORST_FIRST.index, default=Quality.ABSENT)

    async def _known_vehicles(self) -> dict[str, list[int]]:
        known: dict[str, list[int]] = await self._context.state.get(_STATE) or {}
        return known

    def _asked(self) -> set[int]:
        return {each for each in self._sources if each < NULL and each != self._inquiry.address}

    def _is_awake(self, source: int) -> bool:
        return self._network.channel.heard().get(source, 0.0) >= self._begun

    def _awake(self) -> set[int]:
        return {each for each in self._asked() if self._is_awake(each)}

    # -- what it makes of them -------------------------------------------------------------------

    def findings(self) -> Findings:
        return Findings(
            **self._car,
            vin_quality=self._vin_quality,
            modules=tuple(self._module(source) for source in sorted(self._asked())),
            adapter=self._network.channel.name,
        )

    def _module(self, source: int) -> Module:
        listen_only = self._context.settings.listen_only
        answers = {
            kind: self._codes(source, messages)
            for kind, messages in KINDS.items()
            if not listen_only or DM1 in messages or any(map(self._inquiry.has, messages))
        }
        name = self._name(source)
        return Module(ecu=ecu_of(source), answers=answers, **({"name": name} if name else {}))

    def _codes(self, source: int, messages: dict[int, str]) -> Codes:
        """All that these messages say; as well known as the one that is known worst."""
        codes: dict[str, None] = {}
        active: tuple[str, ...] | None = None
        qualities: list[Quality] = []
        details: list[str] = []
        for pgn, name in messages.items():
            quality, found, detail = self._decoded(source, pgn)
            qualities.append(quality)
            codes.update(dict.fromkeys(found))
            if detail is not None:
                details.append(f"{name}: {detail}")
            if pgn == DM1 and quality is Quality.OK:
                active = found
        return Codes(
            quality=min(qualities, key=_WORST_FIRST.index),
            codes=tuple(codes),
            detail="; ".join(details) or None,
            active=active,
        )

    def _decoded(self, source: int, pgn: int) -> tuple[Quality, tuple[str, ...], str | None]:
        answer = self._inquiry.of(source, pgn)
        if answer.quality is not Quality.OK:
            unasked = answer.quality is Quality.ABSENT and self._context.settings.listen_only
            return answer.quality, (), "not heard, and not asked" if unasked else answer.detail
        found = dm.decode(answer.data, self._context.settings.spn_method)
        if found is None:
            return Quality.MALFORMED, (), "too short"
        codes = tuple(dtc.code for dtc in found.dtcs)
        return (Quality.OK if found.trouble is None else Quality.MALFORMED), codes, found.trouble

    def _component(self, source: int) -> dict[str, str]:
        return identity.component(self._inquiry.of(source, COMPONENT_ID).data)

    def _name(self, source: int) -> str | None:
        """Make and model, or else what its NAME says that it is."""
        told = self._component(source)
        words = " ".join(told[key] for key in ("make", "model") if key in told)
        if words:
            return words
        name = self._network.name_of(source)
        return None if name is None else name.words() or f"NAME {name}"

    # -- what it tells besides -------------------------------------------------------------------

    async def tell_identities(self, scan_id: str) -> None:
        """A `module.identity` for each control unit that names its parts or its software."""
        about = {**self._car, **({"scan_id": scan_id} if scan_id else {})}
        for source in sorted(self._asked()):
            values = list(self._identifiers(source))
            if values:
                data = {**about, "ecu": ecu_of(source), "values": values}
                await self._context.emit(catalogue.vehicle.ModuleIdentity.type, data)

    def _identifiers(self, source: int) -> Iterable[dict[str, Any]]:
        texts = {f"component_{key}": text for key, text in self._component(source).items()}
        for name, text in texts.items():
            yield _identifier(COMPONENT_ID, name, text)
        software = identity.software(self._inquiry.of(source, SOFTWARE_ID).data)
        if software is not None:
            yield _identifier(SOFTWARE_ID, "software_identification", software)


def _identifier(pgn: int, name: str, text: str) -> dict[str, Any]:
    return {"did": f"{pgn:04X}", "name": name, "value": text, "unit": "1", "quality": Quality.OK}
