"""How the data bytes of a PID become values: numbers, yes or no, or words for states.

Source: SAE J1979 (ISO 15031-5), appendix B, "PID data byte definitions". Letters A and B there are
the first and second data byte. Each function here makes a formula for a place in the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import Quality

Value = float | bool | str


@dataclass(frozen=True, slots=True)
class Unsaid:
    """The bytes are there and whole, and mean no value."""

    quality: Quality
    detail: str


Formula = Callable[[bytes], Value | Unsaid]
"""Takes all data bytes of a PID, as many as its length says."""


def number(
    at: int = 0,
    size: int = 1,
    *,
    scale: float = 1,
    divisor: float = 1,
    offset: float = 0,
    digits: int = 4,
    signed: bool = False,
) -> Formula:
    """The number in *size* bytes from *at* on, times scale, by divisor, plus offset, rounded."""

    def formula(data: bytes) -> float:
        raw = int.from_bytes(data[at : at + size], "big", signed=signed)
        # Whole numbers stay whole: an event is shorter by their ".0".
        scaled = raw * scale if divisor == 1 else raw * scale / divisor
        return round(scaled + offset, digits)

    return formula


def percent(at: int = 0) -> Formula:
    """0 to 100 %."""
    return number(at, scale=100, divisor=255, digits=2)


def trim(at: int = 0) -> Formula:
    """-100 to 99.22 %: how far from the middle."""
    return number(at, scale=100, divisor=128, offset=-100, digits=2)


def celsius(at: int = 0) -> Formula:
    return number(at, offset=-40)


def lambda_(at: int = 0) -> Formula:
    """Air to fuel, as a part of what burns completely: 0 to just under 2."""
    return number(at, 2, scale=2, divisor=65536)


def bit(place: int, at: int = 0) -> Formula:
    """Yes or no."""
    return lambda data: bool(data[at] >> place & 1)


def words(table: Mapping[int, str], at: int = 0) -> Formula:
    """A named state. What the table does not have the standard does not define: no value."""

    def formula(data: bytes) -> Value | Unsaid:
        found = table.get(data[at])
        if found is None:
            return Unsaid(Quality.MALFORMED, f"0x{data[at]:02X} is no state that J1979 defines")
        return found

    return formula


def sensors(*places: str) -> Formula:
    """Which sensors there are, in words; *places* from bit 0 on."""

    def formula(data: bytes) -> str:
        there = [place for i, place in enumerate(places) if data[0] >> i & 1]
        return " ".join(there) or "none"

    return formula


def unless(mark: int, at: int, formula: Formula, detail: str) -> Formula:
    """*formula*, but no value where the byte *at* is *mark*."""

    def guarded(data: bytes) -> Value | Unsaid:
        return Unsaid(Quality.ABSENT, detail) if data[at] == mark else formula(data)

    return guarded


def flagged(place: int, formula: Formula) -> Formula:
    """*formula*, but no value unless byte A says by its bit *place* that the vehicle has it."""

    def guarded(data: bytes) -> Value | Unsaid:
        if data[0] >> place & 1:
            return formula(data)
        return Unsaid(Quality.ABSENT, "the control unit says that it does not have it")

    return guarded


FUEL_SYSTEM: Final = {
    0x00: "not in use",
    0x01: "open loop, engine cold",
    0x02: "closed loop",
    0x04: "open loop, load or fuel cut",
    0x08: "open loop, fault",
    0x10: "closed loop, sensor fault",
}
"""PID 03."""

SECONDARY_AIR: Final = {
    0x01: "upstream",
    0x02: "downstream of the catalyst",
    0x04: "atmosphere or off",
    0x08: "on for diagnosis",
}
"""PID 12."""

OBD_REQUIREMENTS: Final = {
    0x01: "OBD II (CARB)",
    0x02: "OBD (EPA)",
    0x03: "OBD and OBD II",
    0x04: "OBD I",
    0x05: "none",
    0x06: "EOBD",
    0x07: "EOBD and OBD II",
    0x08: "EOBD and OBD",
    0x09: "EOBD, OBD and OBD II",
    0x0A: "JOBD",
    0x0B: "JOBD and OBD II",
    0x0C: "JOBD and EOBD",
    0x0D: "JOBD, EOBD and OBD II",
    0x11: "EMD",
    0x12: "EMD+",
    0x13: "HD OBD-C",
    0x14: "HD OBD",
    0x15: "WWH OBD",
    0x17: "HD EOBD-I",
    0x18: "HD EOBD-I N",
    0x19: "HD EOBD-II",
    0x1A: "HD EOBD-II N",
    0x1C: "OBDBr-1",
    0x1D: "OBDBr-2",
    0x1E: "KOBD",
    0x1F: "IOBD I",
    0x20: "IOBD II",
    0x21: "HD EOBD-VI",
}
"""PID 1C."""

FUEL_TYPE: Final = {
    0x00: "none",
    0x01: "gasoline",
    0x02: "methanol",
    0x03: "ethanol",
    0x04: "diesel",
    0x05: "LPG",
    0x06: "CNG",
    0x07: "propane",
    0x08: "electric",
    0x09: "bifuel, running on gasoline",
    0x0A: "bifuel, running on methanol",
    0x0B: "bifuel, running on ethanol",
    0x0C: "bifuel, running on LPG",
    0x0D: "bifuel, running on CNG",
    0x0E: "bifuel, running on propane",
    0x0F: "bifuel, running on electricity",
    0x10: "bifuel, running on electricity and combustion",
    0x11: "hybrid, gasoline",
    0x12: "hybrid, ethanol",
    0x13: "hybrid, diesel",
    0x14: "hybrid, electric",
    0x15: "hybrid, electric and combustion",
    0x16: "hybrid, regenerative",
    0x17: "bifuel, running on diesel",
}
"""PID 51."""

EMISSION_REQUIREMENTS: Final = {
    0x0E: "heavy duty, Euro IV B1",
    0x0F: "heavy duty, Euro V B2",
    0x10: "heavy duty, Euro EEC C",
}
"""PID 5F."""
