"""What a box tells of the car at its adapter, and of the adapter."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from nexus_agent.protocol.catalogue.base import (
    CarData,
    EventData,
    Measured,
    Milliseconds,
    Name,
    OneOf,
    Part,
    Seconds,
    Text,
)
from nexus_agent.protocol.names import Quality, Stream

Ecu = Annotated[str, Field(min_length=1, max_length=64)]
"""Who answered: on OBD the CAN identifier (`7E8`, `18DAF110`), or the address on older buses;
`unknown` where the adapter keeps it to itself. Elsewhere how it was asked stands before it, since
the same control unit may answer there otherwise: `UDS 7E8`, `DoIP 1010`, `J1939 00`."""
Pid = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0)]


class Abilities(Part):
    """What an adapter can do, as it was tried; what it only says of itself is in `claims`."""

    claims: Text | None = None
    """How it names itself, such as `ELM327 v1.5`."""
    genuine: bool | None = None
    """False where it does not know commands that came with the version it claims."""
    lacks: tuple[Name, ...] = ()
    """Commands of that version that it does not know."""
    headers: bool | None = None
    """Whether it says which control unit answered."""
    batch: Annotated[int, Field(ge=1, le=6)] | None = None
    """How many values it takes in one question; null until a vehicle was there to try."""
    voltage: bool | None = None
    """Whether it measures the voltage of its socket."""


class AdapterState(EventData):
    """An adapter, or what can be reached through it, has another state than before."""

    type: ClassVar[str] = "adapter.state"
    rate: ClassVar[str] = "at each change"

    adapter: Name
    """Its name in the settings, or its port."""
    state: Annotated[
        str, OneOf("connected", "no_vehicle", "engine_off", "silent", "bus_off", "lost")
    ]
    detail: Text
    """For people."""
    version: Name | None = None
    """How it names itself."""
    protocol: Name | None = None
    """Of the vehicle's bus."""
    abilities: Abilities | None = None


class PollRate(Part):
    """How often one value is read."""

    pid: Pid
    name: Name
    wanted: Seconds
    """From one reading to the next, as the settings have it."""
    achieved: Seconds | None
    """The same as it was; null where it was read less than twice."""


class AdapterRates(EventData):
    """How fast an adapter and the vehicle behind it answer."""

    type: ClassVar[str] = "adapter.rates"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "each minute while values are read"

    adapter: Name
    seconds: Seconds
    """What the figures are about."""
    questions: Count
    answers: Count
    """Questions that somebody answered in time."""
    latency_p50: Milliseconds | None
    """From a question to the end of its answer; null where there was none."""
    latency_p95: Milliseconds | None
    values: tuple[PollRate, ...]


class VehicleIdentified(CarData):
    """A car was found at the adapter, anew or for the first time."""

    type: ClassVar[str] = "vehicle.identified"
    rate: ClassVar[str] = "once a car that comes, and each time its engine starts"

    adapter: Name | None = None
    ecu: Ecu
    """Who told the VIN, or the first that answered."""
    ecus: tuple[Ecu, ...]
    """All that answered."""
    protocol: Name | None
    supported_pids: tuple[Pid, ...]
    """Of service 01, without those that only list others."""
    quality: Quality
    """Of the VIN."""
    vin_check: Annotated[str, OneOf("ok", "wrong", "not used")] | None = None
    """The check digit; `not used` where the maker's region does not use one."""
    maker: Name | None = None
    model_year: Annotated[int, Field(ge=1980, le=2100)] | None = None
    """As the VIN has it; null where the maker's region does not say it there."""
    region: Name | None = None


class TelemetryPid(CarData, Measured):
    """One live value of one control unit (SAE J1979 service 01)."""

    type: ClassVar[str] = "telemetry.pid"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "each value as often as the settings ask for it, down to 10 a second"

    adapter: Name | None = None
    ecu: Ecu
    pid: Pid
    name: Name
    """What it is, such as `engine_speed`."""


class TelemetrySignal(CarData, Measured):
    """One value of a signal on a bus, as a database of messages names it."""

    type: ClassVar[str] = "telemetry.signal"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "at each change that is worth it, bounded for each signal"

    channel: Name
    """Its name in the settings, or the replay's."""
    message: Name
    address: Annotated[int, Field(ge=0, le=255)] | None = None
    """On J1939, the source address of who sent it."""
    signal: Name


class CanTraffic(EventData):
    """What came over a CAN channel, and what became of it."""

    type: ClassVar[str] = "can.traffic"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "each minute while a channel is read"

    channel: Name
    seconds: Seconds
    """What the figures are about."""
    frames: Count
    unknown: Count
    """Frames whose identifier no database of messages has."""
    superseded: Count
    """Frames that a newer one of the same message replaced before it was its turn."""
    malformed: Count
    """Frames that do not fit their message."""
    dropped: Count
    """Frames that came faster than they could be taken."""
    errors: Count
    """Error frames, and what came from the adapter and was no frame."""
    values: Count
    """Readings that were emitted."""


class Identifier(Measured):
    """One thing that a control unit says of itself."""

    did: Annotated[str, Field(pattern=r"^[0-9A-F]{4}$")]
    """The data identifier (ISO 14229-1 section C.1), or on J1939 the parameter group: of what has
    several parts, each is a value of its own."""
    name: Name
    """Such as `ecu_software_number`."""


class ModuleIdentity(CarData):
    """How a control unit names itself, its hardware and its software (UDS, J1939)."""

    type: ClassVar[str] = "module.identity"
    rate: ClassVar[str] = "once a scan and control unit that answers"

    scan_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    ecu: Ecu
    values: tuple[Identifier, ...]


class PowerVoltage(CarData, Measured):
    """The voltage of a car's battery or of a supply."""

    type: ClassVar[str] = "power.voltage"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "as often as the settings ask for it"

    source: Name
    """Where it was measured, such as an adapter's name."""


class PowerAlarm(CarData):
    """A voltage has left its limits, or is back."""

    type: ClassVar[str] = "power.alarm"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.ALERT,)
    rate: ClassVar[str] = "once when it begins, once when it ends"

    source: Name
    state: Annotated[str, OneOf("low", "high", "ended")]
    limit: float
    """V"""
    lowest: float | None = None
    """V, until now."""
    seconds: Seconds
    """How long it has lasted."""


class FlashSession(CarData):
    """A control unit is being programmed, or was."""

    type: ClassVar[str] = "flash.session"
    rate: ClassVar[str] = "at its begin and at its end"

    session_id: Name
    state: Annotated[str, OneOf("begun", "done", "failed", "timed out")]
    owner: Name
    reason: Text
    longest: Seconds
    """How long it may last."""
