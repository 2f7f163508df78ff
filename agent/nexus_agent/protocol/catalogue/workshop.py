"""What a box tells of commercial vehicles' faults, of testers and of the reports they write."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nexus_agent.protocol.catalogue.base import CarData, Measured, Name, OneOf, Part, Text
from nexus_agent.protocol.catalogue.vehicle import Count
from nexus_agent.protocol.names import Stream

Lamp = Annotated[str, OneOf("off", "on", "slow flash", "fast flash", "not available")]


class Lamps(Part):
    """The four lamps of DM1 (SAE J1939-73 section 5.7.1)."""

    malfunction: Lamp
    stop: Lamp
    warning: Lamp
    protect: Lamp


class J1939Fault(CarData):
    """A fault of a control unit on a J1939 bus has come or gone."""

    type: ClassVar[str] = "j1939.fault"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.EVENT, Stream.ALERT)
    rate: ClassVar[str] = "once when it appears and once when it goes"

    channel: Name
    address: Annotated[int, Field(ge=0, le=253)]
    name: Name | None = None
    """The control unit's NAME, as hexadecimal digits."""
    spn: Annotated[int, Field(ge=0, le=2**19 - 1)]
    fmi: Annotated[int, Field(ge=0, le=31)]
    occurrences: Annotated[int, Field(ge=0, le=126)] | None
    """Null where it is not available."""
    state: Annotated[str, OneOf("active", "gone", "previously active")]
    lamps: Lamps | None = None


class TestedValue(Measured):
    """One figure of a test."""

    name: Name


class BatteryTest(CarData):
    """What a battery tester found."""

    type: ClassVar[str] = "battery.test"
    rate: ClassVar[str] = "once a test"

    tester: Name
    verdict: Name
    """In the tester's words."""
    values: tuple[TestedValue, ...]


class ReportIngested(CarData):
    """A report of another tool was taken in."""

    type: ClassVar[str] = "report.ingested"
    rate: ClassVar[str] = "once a report"

    report_id: Name
    kind: Name
    """Such as `scan` or `adas calibration`; `unknown` where no parser knows it."""
    file: Text
    """Its name, without a VIN unless the shop allows it."""
    size: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
