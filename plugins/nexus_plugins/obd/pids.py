"""Live values of service 01: which there are, and how bytes become a value.

Source: SAE J1979 (ISO 15031-5), appendix B, "PID data byte definitions". Letters A and B of its
formulas are the first and second data byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply

ENGINE_SPEED: Final = 0x0C
RANGE: Final = 0x20
"""Each answer on supported PIDs speaks of this many, the last of them being the next such PID."""


@dataclass(frozen=True, slots=True)
class Pid:
    """One value. formula takes exactly *length* data bytes."""

    number: int
    name: str
    unit: str
    length: int
    formula: Callable[[bytes], float]

    @property
    def request(self) -> str:
        return f"01{self.number:02X}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of one value; value is None unless quality is ok."""

    quality: Quality
    value: float | None = None
    detail: str | None = None


def _percent(data: bytes) -> float:
    return round(data[0] * 100 / 255, 2)


def _trim(data: bytes) -> float:
    return round(data[0] * 100 / 128 - 100, 2)


def _celsius(data: bytes) -> float:
    return data[0] - 40


def _byte(data: bytes) -> float:
    return data[0]


def _word(data: bytes) -> float:
    return data[0] * 256 + data[1]


PIDS: Final = {
    pid.number: pid
    for pid in (
        Pid(0x04, "engine_load", "%", 1, _percent),
        Pid(0x05, "coolant_temperature", "°C", 1, _celsius),
        Pid(0x06, "short_fuel_trim_1", "%", 1, _trim),
        Pid(0x07, "long_fuel_trim_1", "%", 1, _trim),
        Pid(0x0B, "intake_pressure", "kPa", 1, _byte),
        Pid(ENGINE_SPEED, "engine_speed", "rpm", 2, lambda data: _word(data) / 4),
        Pid(0x0D, "vehicle_speed", "km/h", 1, _byte),
        Pid(0x0E, "timing_advance", "°", 1, lambda data: data[0] / 2 - 64),
        Pid(0x0F, "intake_temperature", "°C", 1, _celsius),
        Pid(0x10, "air_flow", "g/s", 2, lambda data: _word(data) / 100),
        Pid(0x11, "throttle_position", "%", 1, _percent),
        Pid(0x1F, "run_time", "s", 2, _word),
        Pid(0x21, "distance_with_mil", "km", 2, _word),
        Pid(0x2F, "fuel_level", "%", 1, _percent),
        Pid(0x31, "distance_since_clear", "km", 2, _word),
        Pid(0x33, "barometric_pressure", "kPa", 1, _byte),
        Pid(0x42, "module_voltage", "V", 2, lambda data: _word(data) / 1000),
        Pid(0x46, "ambient_temperature", "°C", 1, _celsius),
        Pid(0x5C, "oil_temperature", "°C", 1, _celsius),
    )
}


def read(pid: Pid, reply: Reply) -> Reading:
    """The value in one control unit's reply to `pid.request`."""
    if reply.quality is not Quality.OK:
        return Reading(reply.quality, detail=reply.detail)
    data = reply.payload[2:]
    if len(data) != pid.length:
        return Reading(Quality.MALFORMED, detail=f"{len(data)} data bytes, {pid.length} expected")
    return Reading(Quality.OK, pid.formula(data))


def supported(base: int, reply: Reply) -> frozenset[int] | None:
    """The PIDs above *base* that the reply to PID *base* claims; None where it does not decode.

    Four bytes, most significant bit first: bit 7 of A stands for base + 1.
    """
    data = reply.payload[2:] if reply.quality is Quality.OK else b""
    if len(data) != RANGE // 8:
        return None
    bits = int.from_bytes(data, "big")
    return frozenset(base + 1 + i for i in range(RANGE) if bits >> (RANGE - 1 - i) & 1)


def values_only(pids: Iterable[int]) -> list[int]:
    """*pids*, sorted, without those that only say which others are supported."""
    return sorted(pid for pid in pids if pid % RANGE)
