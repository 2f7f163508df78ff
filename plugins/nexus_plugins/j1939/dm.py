"""Diagnostic messages with lamps and codes (SAE J1939-73 section 5.7): DM1, DM2, DM6, DM28."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nexus_agent.plugin import catalogue

Lamps = catalogue.workshop.Lamps

OLDER_METHODS: Final = (1, 2, 3)
"""Versions of the conversion method of SPNs that say so with the CM bit set (section 5.7.1)."""

_NONE: Final = ((0, 0), (0x7FFFF, 0x1F))
"""SPN and FMI where there is no code: all zeros, and in older control units all ones (section
5.7.1)."""
_NO_COUNT: Final = 0x7F
_LAMP_ON: Final = 0b01
_NO_LAMP: Final = "not available"
_FLASHES: Final = {0b00: "slow flash", 0b01: "fast flash", 0b11: "on"}
"""Section 5.7.1. The pair 10 is reserved, for lamps and for flashes."""


@dataclass(frozen=True, slots=True)
class Dtc:
    """One code. occurrences: None where the control unit does not count them."""

    spn: int
    fmi: int
    occurrences: int | None

    @property
    def code(self) -> str:
        return f"SPN {self.spn} FMI {self.fmi}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one diagnostic message says."""

    lamps: Lamps
    dtcs: tuple[Dtc, ...]
    trouble: str | None = None
    """Why there may be more codes than these; None where these are all."""


def decode(data: bytes, older_method: int | None = None) -> Diagnosis | None:
    """Read a diagnostic message; None where it is too short to be one.

    older_method: how to read codes that have the CM bit set, one of `OLDER_METHODS`. A code can
    only be read if it is known.
    """
    if len(data) < 6:
        return None
    body, rest = _split(data[2:], single=len(data) == 8)
    found: dict[tuple[int, int], Dtc] = {}
    unread = 0
    for start in range(0, len(body), 4):
        dtc = _dtc(body[start : start + 4], older_method)
        if dtc is None:
            unread += 1
        elif (dtc.spn, dtc.fmi) not in _NONE:
            found.setdefault((dtc.spn, dtc.fmi), dtc)
    return Diagnosis(_lamps(data[0], data[1]), tuple(found.values()), _trouble(unread, rest))


def _split(data: bytes, *, single: bool) -> tuple[bytes, bytes]:
    """Whole codes, and what is left that is no filling.

    A frame of 8 bytes has room for one code and two bytes of filling (section 5.7.1).
    """
    whole = len(data) // 4 * 4
    body, rest = data[:whole], data[whole:]
    filling = not rest.strip(b"\xff") or (single and not any(rest))
    return body, b"" if filling else rest


def _trouble(unread: int, rest: bytes) -> str | None:
    if unread:
        codes = "1 code is" if unread == 1 else f"{unread} codes are"
        return f"{codes} in an older notation: say which with `spn_method`"
    return "the last code is cut short" if rest else None


def _dtc(data: bytes, older_method: int | None) -> Dtc | None:
    """Section 5.7.1; None where the notation is not known."""
    fmi, count = data[2] & 0x1F, data[3] & 0x7F
    occurrences = None if count == _NO_COUNT else count
    low, high = int.from_bytes(data[:2], "little"), data[2] >> 5
    current = high << 16 | low
    if not data[3] >> 7 or (current, fmi) in _NONE or older_method == 3:
        return Dtc(current, fmi, occurrences)
    if older_method == 1:
        return Dtc(int.from_bytes(data[:2], "big") << 3 | high, fmi, occurrences)
    if older_method == 2:
        return Dtc(low << 3 | high, fmi, occurrences)
    return None


def _lamps(states: int, flashes: int) -> Lamps:
    malfunction, stop, warning, protect = (
        _lamp(states >> shift & 3, flashes >> shift & 3) for shift in (6, 4, 2, 0)
    )
    return Lamps(malfunction=malfunction, stop=stop, warning=warning, protect=protect)


def _lamp(state: int, flash: int) -> str:
    if state == _LAMP_ON:
        return _FLASHES.get(flash, "on")
    return "off" if state == 0 else _NO_LAMP
