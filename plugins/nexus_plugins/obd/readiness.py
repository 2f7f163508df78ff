"""Lamp, number of codes and readiness monitors of one control unit.

Source: SAE J1979 appendix B, PID 01 (since codes were cleared) and PID 41 (this driving cycle).
Byte A: lamp and number of codes. B: bits 0 to 2 say which continuous monitors are supported, bits 4
to 6 which of them are not complete, bit 3 whether ignition is by compression. C and D: the same for
the others, whose meaning depends on the ignition.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Answer, Reply
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.listing import one
from nexus_plugins.obd.vehicle import Vehicle

STATUS: Final = 0x01
CYCLE: Final = 0x41

_CONTINUOUS: Final = ("misfire", "fuel_system", "comprehensive_component")
_SPARK: Final = (
    "catalyst",
    "heated_catalyst",
    "evaporative_system",
    "secondary_air_system",
    "gasoline_particulate_filter",
    "oxygen_sensor",
    "oxygen_sensor_heater",
    "egr_vvt_system",
)
"""Bit 4 meant the air conditioning's refrigerant in editions before the particulate filter."""
_COMPRESSION: Final = (
    "nmhc_catalyst",
    "nox_scr_aftertreatment",
    None,
    "boost_pressure",
    None,
    "exhaust_gas_sensor",
    "pm_filter",
    "egr_vvt_system",
)
"""None: reserved."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """complete is None where it is not supported; for a driving cycle, supported means enabled."""

    name: str
    supported: bool
    complete: bool | None


@dataclass(frozen=True, slots=True)
class Status:
    """What one control unit said; keys and meanings as in `readiness.snapshot`."""

    ecu: str
    quality: Quality
    detail: str | None = None
    mil: bool | None = None
    dtc_count: int | None = None
    ignition: str | None = None
    monitors: tuple[Monitor, ...] = ()
    cycle: tuple[Monitor, ...] | None = None

    def incomplete(self) -> list[str]:
        """Names of the monitors that are supported and not complete since codes were cleared."""
        return [monitor.name for monitor in self.monitors if monitor.complete is False]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decode(reply: Reply, cycle: Reply | None = None) -> Status:
    """The status in a reply to PID 01, with that to PID 41 of the same control unit, if any."""
    reply = one(reply)
    if reply.quality is not Quality.OK:
        return Status(reply.ecu, reply.quality, reply.detail)
    data = reply.payload[2:]
    if len(data) != 4:
        return Status(reply.ecu, Quality.MALFORMED, f"{len(data)} data bytes, 4 expected")
    return Status(
        reply.ecu,
        Quality.OK,
        mil=bool(data[0] & 0x80),
        dtc_count=data[0] & 0x7F,
        ignition="compression" if _by_compression(data) else "spark",
        monitors=_monitors(data),
        cycle=_cycle(data, cycle),
    )


def _by_compression(data: bytes) -> bool:
    return bool(data[1] & 0x08)


def _cycle(status: bytes, reply: Reply | None) -> tuple[Monitor, ...] | None:
    """Monitors of this driving cycle; None where they were not told, or not of the same engine."""
    if reply is None or one(reply).quality is not Quality.OK:
        return None
    data = reply.payload[2:]
    if len(data) != 4 or _by_compression(data) != _by_compression(status):
        return None
    return _monitors(data)


def _monitors(data: bytes) -> tuple[Monitor, ...]:
    """All monitors in the order of their bits."""
    names = _COMPRESSION if _by_compression(data) else _SPARK
    bits = [(name, data[1] >> i & 1, data[1] >> i + 4 & 1) for i, name in enumerate(_CONTINUOUS)]
    bits += [(name, data[2] >> i & 1, data[3] >> i & 1) for i, name in enumerate(names) if name]
    return tuple(
        Monitor(name, bool(supported), not incomplete if supported else None)
        for name, supported, incomplete in bits
    )


async def read(elm: Elm327, vehicle: Vehicle) -> list[Status]:
    """The status of each control unit that claims PID 01 or answers it. Raises AdapterError."""
    answer = await elm.ask(f"01{STATUS:02X}")
    cycle: Answer | None = None
    if CYCLE in vehicle.all_pids:
        cycle = await elm.ask(f"01{CYCLE:02X}")
    ecus = {*vehicle.supporters(STATUS), *(reply.ecu for reply in answer.replies)}
    return [
        decode(answer.of(ecu), None if cycle is None else cycle.of(ecu)) for ecu in sorted(ecus)
    ]
