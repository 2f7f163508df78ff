"""Everything that one control unit tells of itself and of its trouble codes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from nexus_agent.plugin import Quality, catalogue
from nexus_plugins.uds import dtc, identification, records
from nexus_plugins.uds.dtc import Listing
from nexus_plugins.uds.privacy import Veil
from nexus_plugins.uds.talk import Module

Codes = catalogue.scans.Codes
Identifier = catalogue.vehicle.Identifier

EXTENDED_SESSION: Final = b"\x10\x03"
DEFAULT_SESSION: Final = b"\x10\x01"
"""DiagnosticSessionControl (ISO 14229-1 section 10.2)."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One control unit. details: `dtc.details` without what they have in common with the scan."""

    ecu: str
    answers: dict[str, Codes]
    values: tuple[Identifier, ...]
    details: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str | None:
        wanted = f"{identification.SYSTEM_NAME:04X}"
        names = [each.value for each in self.values if each.did == wanted]
        return str(names[0])[:200] if names and names[0] is not None else None

    @property
    def is_identified(self) -> bool:
        """Whether it has said anything at all about who it is."""
        return any(each.quality is not Quality.ABSENT for each in self.values)

    def document(self) -> catalogue.scans.Module:
        """Its part of the scan's findings."""
        if self.name is None:
            return catalogue.scans.Module(ecu=self.ecu, answers=self.answers)
        return catalogue.scans.Module(ecu=self.ecu, answers=self.answers, name=self.name)


def silent(ecu: str, why: str) -> Examined:
    """A control unit of which nothing is known, and why."""
    nothing = Listing(Quality.ABSENT, detail=why)
    return Examined(ecu, nothing.answers(None), (), ())


async def examine(module: Module, dids: Iterable[int], veil: Veil) -> Examined:
    """Ask for its codes first: of one that falls silent on the way they matter most."""
    listing = dtc.read(await module.ask(dtc.BY_STATUS, dtc.BY_STATUS_ECHO))
    coding = None
    if listing.faults:
        coding = dtc.coding_of(await module.ask(dtc.NUMBER, dtc.NUMBER_ECHO))
    values = await identify(module, dids)
    details = [await _details(module, found, coding, veil) for found in listing.faults]
    return Examined(module.ecu, listing.answers(coding), veil.identifiers(values), tuple(details))


async def identify(module: Module, dids: Iterable[int]) -> list[Identifier]:
    """One value for each of *dids*, a question each; never the VIN."""
    return [
        identification.decode(did, await module.ask(identification.request(did), 2))
        for did in dids
        if did != identification.VIN
    ]


async def _details(
    module: Module, found: dtc.Dtc, coding: int | None, veil: Veil
) -> dict[str, Any]:
    snapshots = await records.read(module.ask, records.SNAPSHOTS, found.raw)
    extended = await records.read(module.ask, records.EXTENDED, found.raw)
    return {
        "ecu": module.ecu,
        "code": dtc.code_of(found.raw, coding),
        "status": found.status,
        "snapshots": veil.records(snapshots).document(),
        "extended": veil.records(extended).document(),
    }
