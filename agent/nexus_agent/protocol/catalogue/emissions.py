"""What a car tells of its emission controls: freeze frames, readiness, calibrations, tests."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nexus_agent.protocol.catalogue.base import CarData, Measured, Name, OneOf, Part, Text
from nexus_agent.protocol.catalogue.scans import Code, ScanId
from nexus_agent.protocol.catalogue.vehicle import Count, Ecu, Pid
from nexus_agent.protocol.names import Quality

Byte = Annotated[int, Field(ge=0, le=255)]


class FrameValue(Measured):
    """One value of a freeze frame."""

    pid: Pid
    name: Name


class FreezeFrameCaptured(CarData):
    """What a control unit kept of the moment in which it found a fault (service 02)."""

    type: ClassVar[str] = "freeze_frame.captured"
    rate: ClassVar[str] = "once a scan, control unit and frame that holds something"

    scan_id: ScanId | None = None
    ecu: Ecu
    frame: Byte
    """Its number; 0 is the one that the standard demands."""
    code: Code | None
    """What caused it; null where that was not told."""
    values: tuple[FrameValue, ...]


class Monitor(Part):
    """One readiness monitor."""

    name: Name
    """Such as `catalyst`."""
    supported: bool
    complete: bool | None
    """Null where it is not supported."""


class Readiness(Part):
    """What one control unit says (service 01 PID 01)."""

    ecu: Ecu
    quality: Quality
    detail: Text | None = None
    mil: bool | None = None
    """Whether the malfunction indicator lamp is ordered on; null unless quality is ok."""
    dtc_count: Count | None = None
    """Of confirmed emission-related codes."""
    ignition: Annotated[str, OneOf("spark", "compression")] | None = None
    monitors: tuple[Monitor, ...] = ()
    """Since the codes were cleared."""
    cycle: tuple[Monitor, ...] | None = None
    """In this driving cycle (PID 41): supported means enabled; null where it was not told."""


class Verdict(Part):
    """What one inspection programme would say of the readiness alone."""

    rule: Name
    """Which programme, such as `epa`."""
    ready: bool | None
    """Null where it cannot be said; `reason` says why."""
    reason: Text
    """For people."""
    incomplete: tuple[Name, ...]
    """Monitors that are not complete."""
    allowed: Count | None
    """How many may be incomplete; null where the rule has no say."""
    source: Text
    """Where the rule is written."""


class ReadinessSnapshot(CarData):
    """Lamp, number of codes and readiness monitors of each control unit, and what that means."""

    type: ClassVar[str] = "readiness.snapshot"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId | None = None
    ecus: tuple[Readiness, ...]
    model_year: Annotated[int, Field(ge=1980, le=2100)] | None
    """That the verdicts rest upon; null where the VIN does not say it."""
    verdicts: tuple[Verdict, ...]


class Calibration(Part):
    """What one control unit says of its software (service 09)."""

    ecu: Ecu
    name: Name | None = None
    """How it names itself (infotype 0A)."""
    ids: tuple[Name, ...]
    """Calibration ids (04); where there are none, `quality` says why."""
    quality: Quality
    cvns: tuple[Annotated[str, Field(pattern=r"^[0-9A-F]{8}$")], ...]
    """Verification numbers (06), in the order of the ids."""
    cvn_quality: Quality
    detail: Text | None = None


class CalibrationIds(CarData):
    """The software in a car's control units."""

    type: ClassVar[str] = "calibration.ids"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId | None = None
    ecus: tuple[Calibration, ...]


class Counter(Part):
    """How often one monitor has run, and how often it could have."""

    name: Name
    completions: Count
    conditions: Count


class Counters(Part):
    """What one control unit says (service 09, infotype 08 or 0B)."""

    ecu: Ecu
    quality: Quality
    detail: Text | None = None
    ignition_cycles: Count | None = None
    obd_conditions: Count | None = None
    """How often the general conditions for monitoring were met."""
    counters: tuple[Counter, ...] = ()


class InUseCounters(CarData):
    """How often a car's monitors run in use."""

    type: ClassVar[str] = "monitor.counters"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId | None = None
    ecus: tuple[Counters, ...]


class Test(Part):
    """One result of one monitor (service 06)."""

    monitor: Byte
    """OBDMID; 0 on older buses, where tests are numbered by the maker."""
    test: Byte
    """TID."""
    name: Name | None
    """Of the monitor, where the standard names it."""
    value: float
    minimum: float | None
    """Null where there is no such limit."""
    maximum: float | None
    unit: Annotated[str, Field(max_length=20)]
    """Empty where the standard does not define the scaling: then the figures are raw."""
    passed: bool | None
    """Null where the test has not run since the codes were cleared: then all figures are 0."""
    component: Byte | None = None
    """What was tested, by the maker's numbers; only older buses tell it."""


class Tests(Part):
    """What one control unit says."""

    ecu: Ecu
    quality: Quality
    detail: Text | None = None
    tests: tuple[Test, ...] = ()


class MonitorTests(CarData):
    """Results of a car's tests of itself."""

    type: ClassVar[str] = "monitor.tests"
    rate: ClassVar[str] = "once a scan"

    scan_id: ScanId | None = None
    ecus: tuple[Tests, ...]
