"""Values of services 01 and 02: which there are, and how bytes become values.

Source: SAE J1979 (ISO 15031-5), appendix B, "PID data byte definitions". Readiness (PIDs 01 and 41)
is in `readiness`; PIDs that only list others are nobody's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd import formulas
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.dtc import code_of
from nexus_plugins.obd.formulas import (
    Formula,
    Unsaid,
    Value,
    bit,
    celsius,
    flagged,
    lambda_,
    number,
    percent,
    sensors,
    trim,
    unless,
    words,
)

ENGINE_SPEED: Final = 0x0C
FREEZE_CODE: Final = 0x02
RANGE: Final = 0x20
"""Each answer on supported PIDs speaks of this many, the last of them being the next such PID."""
NO_UNIT: Final = "1"
SCALES: Final = (0x4F, 0x50)
"""PIDs that say how others are scaled."""


@dataclass(frozen=True, slots=True)
class FullScale:
    """A quantity whose greatest value the control unit may set: so many *step*s in a PID's byte.

    Zero there means the *usual* one, for which the formulas are written.
    """

    pid: int
    at: int
    usual: float
    step: float = 1


@dataclass(frozen=True, slots=True)
class Field:
    """One value in the data of a PID."""

    name: str
    unit: str
    formula: Formula
    full: FullScale | None = None


@dataclass(frozen=True, slots=True)
class Pid:
    """What one question asks for: *length* data bytes that hold one value or several."""

    number: int
    name: str
    length: int
    fields: tuple[Field, ...]

    @property
    def request(self) -> str:
        return f"01{self.number:02X}"

    @property
    def unit(self) -> str:
        """Of the first value."""
        return self.fields[0].unit


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of one value; value is None unless quality is ok."""

    quality: Quality
    value: Value | None = None
    detail: str | None = None


Scales = Mapping[int, bytes | None]
"""What one control unit said to `SCALES`, by PID; None where it would not say. Those that it does
not support are not there."""


def _one(
    pid: int, name: str, unit: str, length: int, formula: Formula, full: FullScale | None = None
) -> Pid:
    return Pid(pid, name, length, (Field(name, unit, formula, full),))


_FULL_LAMBDA: Final = FullScale(0x4F, 0, usual=2)
_FULL_VOLTAGE: Final = FullScale(0x4F, 1, usual=8)
_FULL_CURRENT: Final = FullScale(0x4F, 2, usual=128)
_FULL_PRESSURE: Final = FullScale(0x4F, 3, usual=255, step=10)
_FULL_AIR_FLOW: Final = FullScale(0x50, 0, usual=655.35, step=10)


def _oxygen_narrow(pid: int, sensor: int) -> Pid:
    name = f"oxygen_sensor_{sensor}"
    unused = "the sensor is not used for fuel trim"
    return Pid(
        pid,
        name,
        2,
        (
            Field(f"{name}_voltage", "V", number(scale=5, divisor=1000)),
            Field(f"{name}_trim", "%", unless(0xFF, 1, trim(1), unused)),
        ),
    )


def _oxygen_wide(pid: int, sensor: int, *, current: bool) -> Pid:
    """A wide-range sensor, with its voltage or its current."""
    name = f"oxygen_sensor_{sensor}"
    second = (
        Field(f"{name}_current", "mA", number(2, 2, divisor=256, offset=-128), _FULL_CURRENT)
        if current
        else Field(f"{name}_wide_voltage", "V", number(2, 2, scale=8, divisor=65536), _FULL_VOLTAGE)
    )
    kind = "current" if current else "voltage"
    # Both kinds tell lambda: the same quantity under two names, lest one sensor's two readings mix.
    first = Field(f"{name}_lambda_{kind}", NO_UNIT, lambda_(), _FULL_LAMBDA)
    return Pid(pid, f"{name}_wide_{kind}", 4, (first, second))


def _freeze_code(data: bytes) -> str:
    return code_of(*data) if any(data) else "none"


_PAIRS: Final = ("B1S1", "B1S2", "B2S1", "B2S2", "B3S1", "B3S2", "B4S1", "B4S2")
_FOURS: Final = ("B1S1", "B1S2", "B1S3", "B1S4", "B2S1", "B2S2", "B2S3", "B2S4")

_TABLE: Final = (
    Pid(
        0x01,
        "monitor_status",
        4,
        (
            Field("mil", NO_UNIT, bit(7)),
            Field("dtc_count", NO_UNIT, lambda data: data[0] & 0x7F),
        ),
    ),
    _one(FREEZE_CODE, "freeze_frame_code", NO_UNIT, 2, _freeze_code),
    Pid(
        0x03,
        "fuel_system",
        2,
        (
            Field("fuel_system_1", NO_UNIT, words(formulas.FUEL_SYSTEM)),
            Field("fuel_system_2", NO_UNIT, words(formulas.FUEL_SYSTEM, 1)),
        ),
    ),
    _one(0x04, "engine_load", "%", 1, percent()),
    _one(0x05, "coolant_temperature", "°C", 1, celsius()),
    _one(0x06, "short_fuel_trim_1", "%", 1, trim()),
    _one(0x07, "long_fuel_trim_1", "%", 1, trim()),
    _one(0x08, "short_fuel_trim_2", "%", 1, trim()),
    _one(0x09, "long_fuel_trim_2", "%", 1, trim()),
    _one(0x0A, "fuel_pressure", "kPa", 1, number(scale=3)),
    _one(0x0B, "intake_pressure", "kPa", 1, number(), _FULL_PRESSURE),
    _one(ENGINE_SPEED, "engine_speed", "rpm", 2, number(0, 2, divisor=4)),
    _one(0x0D, "vehicle_speed", "km/h", 1, number()),
    _one(0x0E, "timing_advance", "°", 1, number(divisor=2, offset=-64)),
    _one(0x0F, "intake_temperature", "°C", 1, celsius()),
    _one(0x10, "air_flow", "g/s", 2, number(0, 2, divisor=100), _FULL_AIR_FLOW),
    _one(0x11, "throttle_position", "%", 1, percent()),
    _one(0x12, "secondary_air", NO_UNIT, 1, words(formulas.SECONDARY_AIR)),
    _one(0x13, "oxygen_sensors", NO_UNIT, 1, sensors(*_FOURS)),
    *(_oxygen_narrow(0x13 + sensor, sensor) for sensor in range(1, 9)),
    _one(0x1C, "obd_requirements", NO_UNIT, 1, words(formulas.OBD_REQUIREMENTS)),
    _one(0x1D, "oxygen_sensors_4_banks", NO_UNIT, 1, sensors(*_PAIRS)),
    _one(0x1E, "power_take_off", NO_UNIT, 1, bit(0)),
    _one(0x1F, "run_time", "s", 2, number(0, 2)),
    _one(0x21, "distance_with_mil", "km", 2, number(0, 2)),
    _one(0x22, "fuel_rail_pressure_relative", "kPa", 2, number(0, 2, scale=79, divisor=1000)),
    _one(0x23, "fuel_rail_pressure_gauge", "kPa", 2, number(0, 2, scale=10)),
    *(_oxygen_wide(0x23 + sensor, sensor, current=False) for sensor in range(1, 9)),
    _one(0x2C, "egr_commanded", "%", 1, percent()),
    _one(0x2D, "egr_error", "%", 1, trim()),
    _one(0x2E, "evaporative_purge_commanded", "%", 1, percent()),
    _one(0x2F, "fuel_level", "%", 1, percent()),
    _one(0x30, "warm_ups_since_clear", NO_UNIT, 1, number()),
    _one(0x31, "distance_since_clear", "km", 2, number(0, 2)),
    _one(0x32, "evaporative_pressure", "Pa", 2, number(0, 2, divisor=4, signed=True)),
    _one(0x33, "barometric_pressure", "kPa", 1, number()),
    *(_oxygen_wide(0x33 + sensor, sensor, current=True) for sensor in range(1, 9)),
    _one(0x3C, "catalyst_temperature_bank_1_1", "°C", 2, number(0, 2, divisor=10, offset=-40)),
    _one(0x3D, "catalyst_temperature_bank_2_1", "°C", 2, number(0, 2, divisor=10, offset=-40)),
    _one(0x3E, "catalyst_temperature_bank_1_2", "°C", 2, number(0, 2, divisor=10, offset=-40)),
    _one(0x3F, "catalyst_temperature_bank_2_2", "°C", 2, number(0, 2, divisor=10, offset=-40)),
    _one(0x42, "module_voltage", "V", 2, number(0, 2, divisor=1000)),
    _one(0x43, "absolute_load", "%", 2, number(0, 2, scale=100, divisor=255, digits=2)),
    _one(0x44, "lambda_commanded", NO_UNIT, 2, lambda_(), _FULL_LAMBDA),
    _one(0x45, "throttle_position_relative", "%", 1, percent()),
    _one(0x46, "ambient_temperature", "°C", 1, celsius()),
    _one(0x47, "throttle_position_b", "%", 1, percent()),
    _one(0x48, "throttle_position_c", "%", 1, percent()),
    _one(0x49, "pedal_position_d", "%", 1, percent()),
    _one(0x4A, "pedal_position_e", "%", 1, percent()),
    _one(0x4B, "pedal_position_f", "%", 1, percent()),
    _one(0x4C, "throttle_commanded", "%", 1, percent()),
    _one(0x4D, "time_with_mil", "min", 2, number(0, 2)),
    _one(0x4E, "time_since_clear", "min", 2, number(0, 2)),
    Pid(
        0x4F,
        "maxima",
        4,
        (
            Field("maximum_lambda", NO_UNIT, number()),
            Field("maximum_oxygen_sensor_voltage", "V", number(1)),
            Field("maximum_oxygen_sensor_current", "mA", number(2)),
            Field("maximum_intake_pressure", "kPa", number(3, scale=10)),
        ),
    ),
    _one(0x50, "maximum_air_flow", "g/s", 4, number(scale=10)),
    _one(0x51, "fuel_type", NO_UNIT, 1, words(formulas.FUEL_TYPE)),
    _one(0x52, "ethanol", "%", 1, percent()),
    _one(0x53, "evaporative_pressure_absolute", "kPa", 2, number(0, 2, divisor=200)),
    _one(0x54, "evaporative_pressure_wide", "Pa", 2, number(0, 2, signed=True)),
    *(
        Pid(
            pid,
            f"{term}_oxygen_trim_{first}_{first + 2}",
            2,
            tuple(
                Field(f"{term}_oxygen_trim_{bank}", "%", trim(at))
                for at, bank in enumerate((first, first + 2))
            ),
        )
        for pid, term, first in (
            (0x55, "short", 1),
            (0x56, "long", 1),
            (0x57, "short", 2),
            (0x58, "long", 2),
        )
    ),
    _one(0x59, "fuel_rail_pressure_absolute", "kPa", 2, number(0, 2, scale=10)),
    _one(0x5A, "pedal_position_relative", "%", 1, percent()),
    _one(0x5B, "hybrid_battery_level", "%", 1, percent()),
    _one(0x5C, "oil_temperature", "°C", 1, celsius()),
    _one(0x5D, "injection_timing", "°", 2, number(0, 2, divisor=128, offset=-210)),
    _one(0x5E, "fuel_rate", "L/h", 2, number(0, 2, divisor=20)),
    _one(0x5F, "emission_requirements", NO_UNIT, 1, words(formulas.EMISSION_REQUIREMENTS)),
    _one(0x61, "torque_demanded", "%", 1, number(offset=-125)),
    _one(0x62, "torque_actual", "%", 1, number(offset=-125)),
    _one(0x63, "torque_reference", "Nm", 2, number(0, 2)),
    Pid(
        0x64,
        "torque_points",
        5,
        tuple(
            Field(f"torque_{point}", "%", number(at, offset=-125))
            for at, point in enumerate(("idle", "point_1", "point_2", "point_3", "point_4"))
        ),
    ),
    Pid(
        0x66,
        "air_flow_sensors",
        5,
        tuple(
            Field(f"air_flow_{name}", "g/s", flagged(i, number(1 + 2 * i, 2, divisor=32)))
            for i, name in enumerate("ab")
        ),
    ),
    Pid(
        0x67,
        "coolant_temperatures",
        3,
        tuple(
            Field(f"coolant_temperature_{i + 1}", "°C", flagged(i, celsius(1 + i))) for i in (0, 1)
        ),
    ),
    Pid(
        0x7F,
        "engine_run_times",
        13,
        tuple(
            Field(f"engine_time_{name}", "s", flagged(i, number(1 + 4 * i, 4)))
            for i, name in enumerate(("total", "idle", "power_take_off"))
        ),
    ),
    _one(0x84, "manifold_surface_temperature", "°C", 1, celsius()),
    _one(0x8D, "throttle_position_g", "%", 1, percent()),
    _one(0x8E, "torque_friction", "%", 1, number(offset=-125)),
    Pid(
        0x9D,
        "fuel_rates",
        4,
        (
            Field("fuel_rate_engine", "g/s", number(0, 2, divisor=50)),
            Field("fuel_rate_vehicle", "g/s", number(2, 2, divisor=50)),
        ),
    ),
    _one(0x9E, "exhaust_flow", "kg/h", 2, number(0, 2, divisor=5)),
    _one(0xA2, "cylinder_fuel_rate", "mg/stroke", 2, number(0, 2, divisor=32)),
    _one(0xA4, "gear_ratio", NO_UNIT, 4, flagged(1, number(2, 2, divisor=1000))),
    _one(0xA6, "odometer", "km", 4, number(0, 4, divisor=10)),
)

PIDS: Final = {pid.number: pid for pid in _TABLE}


_USUAL: Final[Scales] = {}


def readings(pid: Pid, reply: Reply, scales: Scales = _USUAL) -> tuple[tuple[Field, Reading], ...]:
    """Every value in one control unit's reply to `pid.request`; *scales* are that unit's."""
    if reply.quality is not Quality.OK:
        return _all(pid, Reading(reply.quality, detail=reply.detail))
    return decode(pid, reply.payload[2:], scales)


def read(pid: Pid, reply: Reply, scales: Scales = _USUAL) -> Reading:
    """The first of them, or the only one."""
    return readings(pid, reply, scales)[0][1]


def decode(pid: Pid, data: bytes, scales: Scales = _USUAL) -> tuple[tuple[Field, Reading], ...]:
    """Every value in the data bytes of *pid*; all are malformed where the length is wrong."""
    if len(data) != pid.length:
        detail = f"{len(data)} data bytes, {pid.length} expected"
        return _all(pid, Reading(Quality.MALFORMED, detail=detail))
    return tuple((field, _reading(field, data, scales)) for field in pid.fields)


def scale_of(pid: int, reply: Reply) -> bytes | None:
    """What a reply to one of `SCALES` says; None where it says nothing."""
    data = reply.payload[2:] if reply.quality is Quality.OK else b""
    return data if len(data) == PIDS[pid].length else None


def _all(pid: Pid, reading: Reading) -> tuple[tuple[Field, Reading], ...]:
    return tuple((field, reading) for field in pid.fields)


def _reading(field: Field, data: bytes, scales: Scales) -> Reading:
    found = field.formula(data)
    if isinstance(found, Unsaid):
        return Reading(found.quality, detail=found.detail)
    full = field.full
    if full is None or full.pid not in scales or isinstance(found, str):
        return Reading(Quality.OK, found)
    told = scales[full.pid]
    if told is None:
        detail = f"how it is scaled was not told (PID 0x{full.pid:02X})"
        return Reading(Quality.ABSENT, detail=detail)
    factor = told[full.at] * full.step / full.usual or 1
    return Reading(Quality.OK, round(found * factor, 4))


def supported(base: int, reply: Reply) -> frozenset[int] | None:
    """The PIDs above *base* that the reply to PID *base* claims; None where it does not decode.

    Four bytes, most significant bit first: bit 7 of A stands for base + 1.
    """
    return bitmap(base, reply.payload[2:]) if reply.quality is Quality.OK else None


def bitmap(base: int, data: bytes) -> frozenset[int] | None:
    """What the four *data* bytes of such a reply claim; None where there are not four."""
    if len(data) != RANGE // 8:
        return None
    bits = int.from_bytes(data, "big")
    return frozenset(base + 1 + i for i in range(RANGE) if bits >> (RANGE - 1 - i) & 1)


def values_only(pids: Iterable[int]) -> list[int]:
    """*pids*, sorted, without those that only say which others are supported."""
    return sorted(pid for pid in pids if pid % RANGE)
