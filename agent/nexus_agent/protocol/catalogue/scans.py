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
    active: tuple[Code, ...] | None = None
    """Those whose fault is there now; null where that is not told (OBD does not)."""


class Module(Part):
    """One control unit that was asked, whether it answered or not."""

    ecu: Ecu
    answers: dict[str, Codes]
    """kind → what it said. A kind that is not here was not asked, or is unknown to its bus."""
    name: Name | None = None
    """How it names itself, where it was asked and told."""


class FoundCode(Part):
    """One code of one control unit."""

    code: Code
    kinds: tuple[Kind, ...]
    ecu: Ecu
    active: bool | None = None
    """Whether its fault is there now; null where that is not told."""


class FramesAnswer(Part):
    """What one control unit said to the question for freeze frames (service 02)."""

    ecu: Ecu
    quality: Quality
    """No frames means that it keeps none only where it is `ok`."""
    detail: Text | None = None
    frames: Count
    """How many it has; each has an event of its own."""


class TakenPart(Part):
    """One plugin's part in a scan."""

    plugin: Name
    adapter: Name | None = None
    outcome: Annotated[str, OneOf("done", "failed")]
    """failed: what it would have asked was not asked, or not to the end."""
    detail: Text | None = None
    """Why it failed, for people."""


class Findings(Part):
    """What a plugin's part in a scan has found: its command returns this, and `scan.completed`
    has it. Both keys that name the car come from `Context.vehicle`.
    """

    vehicle_ref: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    vin: Annotated[str, Field(pattern=r"^[A-HJ-NPR-Z0-9]{17}$")] | None = None
    vin_quality: Quality
    modules: tuple[Module, ...]
    freeze_frames: tuple[FramesAnswer, ...] | None = None
    adapter: Name | None = None


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
    parts: tuple[TakenPart, ...] = ()
    """Who asked. A control unit that only a part which failed could have asked is not clean."""


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


class Record(Part):
    """One record that a control unit keeps of a code (ISO 14229-1, service 19)."""

    number: Annotated[int, Field(ge=0, le=255)]
    data: Annotated[str, Field(pattern=r"^([0-9A-F]{2})*$")]
    """Its bytes as they came: only the maker knows how to read them. Empty where they hold the VIN
    and the shop does not allow it."""
    identifiers: Count | None = None
    """How many data identifiers a snapshot has."""


class Records(Part):
    """What a control unit said to the question for one kind of records."""

    quality: Quality
    """No records means that it keeps none only where it is `ok`."""
    records: tuple[Record, ...] = ()
    detail: Text | None = None


class DtcDetails(CarData):
    """What a control unit keeps of one code beside the code (UDS)."""

    type: ClassVar[str] = "dtc.details"
    rate: ClassVar[str] = "once a scan, code and control unit"

    scan_id: ScanId
    ecu: Ecu
    code: Code
    status: Annotated[int, Field(ge=0, le=255)]
    """The status byte (ISO 14229-1 section D.2)."""
    snapshots: Records | None = None
    """Null where they were not asked for."""
    extended: Records | None = None


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
