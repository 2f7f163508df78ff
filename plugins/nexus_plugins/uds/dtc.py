"""Diagnostic trouble codes with their status (ISO 14229-1 section 12.3, service 19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import Quality, catalogue
from nexus_plugins.uds.reply import Reply

Codes = catalogue.scans.Codes

BY_STATUS: Final = b"\x19\x02\xff"
"""reportDTCByStatusMask, whichever the status."""
BY_STATUS_ECHO: Final = 1
NUMBER: Final = b"\x19\x01\xff"
"""reportNumberOfDTCByStatusMask: of its answer only the format of the codes is of interest."""
NUMBER_ECHO: Final = 1
CLEAR: Final = b"\x14\xff\xff\xff"
"""ClearDiagnosticInformation, all groups (section 12.2)."""

FAILED: Final = 0x01
"""testFailed: the fault is there now (section D.2, as the two below)."""
PENDING: Final = 0x04
"""pendingDTC: seen in this operation cycle or the last."""
CONFIRMED: Final = 0x08
"""confirmedDTC: seen often enough to be stored."""

KINDS: Final = ("stored", "pending")

_J2012: Final = frozenset({0x00, 0x01, 0x04})
"""DTCFormatIdentifier of two bytes of SAE J2012 and one of failure type (section D.3)."""
_SYSTEMS: Final = "PCBU"
_NONE: Final = b"\0\0\0"
"""No code (SAE J2012-DA): a place that is not used."""


@dataclass(frozen=True, slots=True)
class Dtc:
    """One code. raw: its three bytes; status: as told, bits that are not kept left out."""

    raw: bytes
    status: int

    @property
    def kind(self) -> str | None:
        """`stored`, `pending`, or None where there is no fault to speak of.

        A fault that is there now and not confirmed counts as pending, also where the control unit
        does not keep pendingDTC.
        """
        if self.status & CONFIRMED:
            return "stored"
        return "pending" if self.status & (PENDING | FAILED) else None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a control unit said to BY_STATUS. kept: the status bits that it keeps."""

    quality: Quality
    dtcs: tuple[Dtc, ...] = ()
    kept: int = 0
    detail: str | None = None

    @property
    def faults(self) -> tuple[Dtc, ...]:
        """Those with a kind; others are only known, such as those that were not tested yet."""
        return tuple(dtc for dtc in self.dtcs if dtc.kind is not None)

    def answers(self, coding: int | None) -> dict[str, Codes]:
        """Kind → what was said about it; a kind that the control unit does not keep is not there.

        coding: see `code_of`.
        """
        if self.quality is not Quality.OK:
            nothing = Codes(quality=self.quality, codes=(), detail=self.detail)
            return dict.fromkeys(KINDS, nothing)
        keeps = {"stored": CONFIRMED, "pending": PENDING | FAILED}
        return {kind: self._of(kind, coding) for kind in KINDS if self.kept & keeps[kind]}

    def _of(self, kind: str, coding: int | None) -> Codes:
        found = {code_of(dtc.raw, coding): dtc for dtc in self.faults if dtc.kind == kind}
        codes = tuple(found)
        if not self.kept & FAILED:
            return Codes(quality=Quality.OK, codes=codes)
        active = tuple(code for code, dtc in found.items() if dtc.status & FAILED)
        return Codes(quality=Quality.OK, codes=codes, active=active)


def read(reply: Reply) -> Listing:
    """The codes in a reply to BY_STATUS: the availability mask, then four bytes a code.

    Control units that make the mask from the codes they have say 0 where they have none.
    """
    if reply.quality is not Quality.OK:
        return Listing(reply.quality, detail=reply.detail)
    data = reply.data
    if len(data) % 4 != 1:
        return Listing(Quality.MALFORMED, detail="the codes are not whole")
    if data == b"\0":
        return Listing(Quality.OK, kept=CONFIRMED | PENDING)
    if not data[0] & (CONFIRMED | PENDING | FAILED):
        return Listing(Quality.MALFORMED, detail="no status of a fault is kept")
    found: dict[bytes, int] = {}
    for place in range(1, len(data), 4):
        raw, status = data[place : place + 3], data[place + 3] & data[0]
        if raw != _NONE:
            found[raw] = found.get(raw, 0) | status
    dtcs = tuple(Dtc(raw, status) for raw, status in found.items())
    return Listing(Quality.OK, dtcs, data[0])


def coding_of(reply: Reply) -> int | None:
    """The DTCFormatIdentifier in a reply to NUMBER; None where it was not told."""
    if reply.quality is not Quality.OK or len(reply.data) != 4:
        return None
    return reply.data[1]


def code_of(raw: bytes, coding: int | None) -> str:
    """`P0301-11`: the code of SAE J2012-DA, with the byte that says how it failed.

    coding: the DTCFormatIdentifier, None where it is not known. What is coded otherwise (trucks) is
    not interpreted: `DTC 6E0003, format 02`.
    """
    if coding is not None and coding not in _J2012:
        return f"DTC {raw.hex().upper()}, format {coding:02X}"
    high, low, failure = raw
    return f"{_SYSTEMS[high >> 6]}{high >> 4 & 3:X}{high & 0x0F:X}{low:02X}-{failure:02X}"
