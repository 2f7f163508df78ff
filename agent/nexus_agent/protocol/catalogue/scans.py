"""What a scan finds in a car's control units: trouble codes, and how they changed."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nexus_agent.protocol.catalogue.base import CarData, Name, OneOf, Part, Text
from nexus_agent.protocol.catalogue.vehicle import Count, Ecu
from nexus_agent.protocol.names import Quality

Code = Annotated[str, Field(min_length=1, max_length=40)]
"""A trouble code: `P0301` (SAE J2012), with its failure type `P0301-11` where the bus tells it, or
`SPN 110 FMI 3` (SAE J1939-73)."""
ScanId = Annotated[str, Field(min_length=1, max_length=64)]
Kind = Annotated[str, OneOf("stored", "pending", "permanent")]
"""stored: confirmed (service 03); pending: seen, not confirmed yet (07); permanent: it outlives a
clearing until the car itself has found the fault gone (0A)."""
Phase = Annotated[str, OneOf("pre", "post")]


class ScanStarted(CarData):
    """A scan has begun; `scan.completed` follows unless it breaks off."""

    type: ClassVar[str] = "scan.started"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId
    reason: Annotated[str, OneOf("command", "schedule")]
    adapter: Name | None = None
    phase: Phase | None = None
    """Before or after a repair, where the technician said so."""


class Codes(Part):
    """What one control unit said about one kind of codes."""

    quality: Quality
    """No codes means clean only where it is `ok`."""
    codes: tuple[Code, ...]
    detail: Text | None = None


class Module(Part):
    """One control unit that was asked, whether it answered or not."""

    ecu: Ecu
    answers: dict[str, Codes]
    """kind → what it said. A kind that is not here was not asked."""
    name: Name | None = None
    """How it names itself, where it was asked and told."""


class FoundCode(Part):
    """One code of one control unit."""

    code: Code
    kinds: tuple[Kind, ...]
    ecu: Ecu


class FramesAnswer(Part):
    """What one control unit said to the question for freeze frames (service 02)."""

    ecu: Ecu
    quality: Quality
    """No frames means that it keeps none only where it is `ok`."""
    detail: Text | None = None
    frames: Count
    """How many it has; each has an event of its own."""


class ScanCompleted(CarData):
    """Every control unit that was asked for trouble codes, and what it said."""

    type: ClassVar[str] = "scan.completed"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId
    modules: tuple[Module, ...]
    dtcs: tuple[FoundCode, ...]
    """All codes that were found."""
    vin_quality: Quality
    freeze_frames: tuple[FramesAnswer, ...] | None = None
    """Null where they were not asked for."""
    adapter: Name | None = None
    phase: Phase | None = None


class FixedCode(Part):
    """A code that is gone."""

    code: Code
    ecu: Ecu


class Unknown(Part):
    """A kind of codes of one control unit of which one of the two scans knows nothing."""

    ecu: Ecu
    kind: Kind
    quality: Quality
    why: Annotated[str, OneOf("not asked", "did not answer", "refused", "malformed")]
    scan: Annotated[str, OneOf("before", "after")]
    """Which of the two lacks it."""
    codes: tuple[Code, ...]
    """What the earlier scan had, and nobody can now speak for."""


class ScanDiff(CarData):
    """How a car's codes changed from one scan to the next."""

    type: ClassVar[str] = "scan.diff"
    rate: ClassVar[str] = "once a scan of a car that was scanned before"

    before: ScanId
    after: ScanId
    fixed: tuple[FixedCode, ...]
    """Gone, as every service said that had shown it, and the one for stored codes."""
    remaining: tuple[FoundCode, ...]
    permanent: tuple[FoundCode, ...]
    """Were there before, and are now permanent only: cleared or healed, and the car has not yet
    found the fault gone."""
    new: tuple[FoundCode, ...]
    unknown: tuple[Unknown, ...]


class DtcObserved(CarData):
    """A scan has found a code."""

    type: ClassVar[str] = "dtc.observed"
    rate: ClassVar[str] = "once a scan, code, kind and control unit"

    scan_id: ScanId
    code: Code
    kind: Kind
    ecu: Ecu


class Cleared(Part):
    """What one control unit said to the order to clear."""

    ecu: Ecu
    outcome: Quality
    """`ok`: it has cleared; `refused`, `absent`, `malformed`: nobody knows that it has."""
    detail: Text | None


class DtcCleared(CarData):
    """Trouble codes were ordered to be cleared; with them go freeze frames and readiness."""

    type: ClassVar[str] = "dtc.cleared"
    rate: ClassVar[str] = "once an order"

    adapter: Name | None = None
    outcome: Quality
    """The worst of all; `ok` if everybody who answered has cleared."""
    ecus: tuple[Cleared, ...]
