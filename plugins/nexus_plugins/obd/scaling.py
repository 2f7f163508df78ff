"""How the figures of test results are scaled.

Source: SAE J1979 appendix E, "Unit and Scaling IDs". Ids from 80 on are signed (two's complement).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SIGNED: Final = 0x80


@dataclass(frozen=True, slots=True)
class Scaling:
    """raw times scale plus offset, in *unit*; `1` where the figure has none."""

    unit: str
    scale: float
    offset: float = 0


SCALINGS: Final = {
    0x01: Scaling("1", 1),
    0x02: Scaling("1", 0.1),
    0x03: Scaling("1", 0.01),
    0x04: Scaling("1", 0.001),
    0x05: Scaling("1", 0.0000305),
    0x06: Scaling("1", 0.000305),
    0x07: Scaling("rpm", 0.25),
    0x08: Scaling("km/h", 0.01),
    0x09: Scaling("km/h", 1),
    0x0A: Scaling("mV", 0.122),
    0x0B: Scaling("V", 0.001),
    0x0C: Scaling("V", 0.01),
    0x0D: Scaling("mA", 0.00390625),
    0x0E: Scaling("A", 0.001),
    0x0F: Scaling("A", 0.01),
    0x10: Scaling("ms", 1),
    0x11: Scaling("ms", 100),
    0x12: Scaling("s", 1),
    0x13: Scaling("mΩ", 1),
    0x14: Scaling("Ω", 1),
    0x15: Scaling("kΩ", 1),
    0x16: Scaling("°C", 0.1, -40),
    0x17: Scaling("kPa", 0.01),
    0x18: Scaling("kPa", 0.0117),
    0x19: Scaling("kPa", 0.079),
    0x1A: Scaling("kPa", 1),
    0x1B: Scaling("kPa", 10),
    0x1C: Scaling("°", 0.01),
    0x1D: Scaling("°", 0.5),
    0x1E: Scaling("1", 0.0000305),
    0x1F: Scaling("1", 0.05),
    0x20: Scaling("1", 0.00390625),
    0x21: Scaling("mHz", 1),
    0x22: Scaling("Hz", 1),
    0x23: Scaling("kHz", 1),
    0x24: Scaling("1", 1),
    0x25: Scaling("km", 1),
    0x26: Scaling("mV/ms", 0.1),
    0x27: Scaling("g/s", 0.01),
    0x28: Scaling("g/s", 1),
    0x29: Scaling("Pa/s", 0.25),
    0x2A: Scaling("kg/h", 0.001),
    0x2B: Scaling("1", 1),
    0x2C: Scaling("g/cylinder", 0.01),
    0x2D: Scaling("mg/stroke", 0.01),
    0x2F: Scaling("%", 0.01),
    0x30: Scaling("%", 0.001526),
    0x31: Scaling("L", 0.001),
    0x32: Scaling("in", 0.0000305),
    0x33: Scaling("1", 0.00024414),
    0x34: Scaling("min", 1),
    0x35: Scaling("ms", 10),
    0x36: Scaling("g", 0.01),
    0x37: Scaling("g", 0.1),
    0x38: Scaling("g", 1),
    0x39: Scaling("%", 0.01, -327.68),
    0x81: Scaling("1", 1),
    0x82: Scaling("1", 0.1),
    0x83: Scaling("1", 0.01),
    0x84: Scaling("1", 0.001),
    0x85: Scaling("1", 0.0000305),
    0x86: Scaling("1", 0.000305),
    0x8A: Scaling("mV", 0.122),
    0x8B: Scaling("V", 0.001),
    0x8C: Scaling("V", 0.01),
    0x8D: Scaling("mA", 0.00390625),
    0x8E: Scaling("A", 0.001),
    0x90: Scaling("ms", 1),
    0x96: Scaling("°C", 0.1),
    0x9C: Scaling("°", 0.01),
    0x9D: Scaling("°", 0.5),
    0xA8: Scaling("g/s", 1),
    0xA9: Scaling("Pa/s", 0.25),
    0xAF: Scaling("%", 0.01),
    0xB0: Scaling("%", 0.003052),
    0xFD: Scaling("kPa", 0.001),
    0xFE: Scaling("Pa", 0.25),
}
"""Id → scaling. Those that are not here stay raw."""


def unit_of(uasid: int) -> str:
    """Empty where the id is not known here."""
    known = SCALINGS.get(uasid)
    return "" if known is None else known.unit


def scaled(uasid: int, word: bytes) -> float:
    """The figure of two bytes; raw where the id is not known here."""
    raw = int.from_bytes(word, "big", signed=uasid >= _SIGNED)
    known = SCALINGS.get(uasid)
    return raw if known is None else round(raw * known.scale + known.offset, 6)
