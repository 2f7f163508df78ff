"""Diagnostic trouble codes: from bytes to codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply

SERVICES: Final = {"stored": "03", "pending": "07", "permanent": "0A"}
"""Kinds of codes and the service that reads each (SAE J1979 sections 6.3, 6.7 and 6.10)."""

_SYSTEMS: Final = "PCBU"


@dataclass(frozen=True, slots=True)
class Codes:
    """What one control unit said to one service. No codes means clean only where quality is ok."""

    quality: Quality
    codes: tuple[str, ...] = ()
    detail: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"quality": self.quality, "codes": list(self.codes), "detail": self.detail}


Modules = dict[str, dict[str, Codes]]
"""Control unit → kind → what it said."""


def code_of(high: int, low: int) -> str:
    """The code of two bytes (SAE J2012): two bits of system, two of digit, three hex digits."""
    return f"{_SYSTEMS[high >> 6]}{high >> 4 & 3:X}{high & 0x0F:X}{low:02X}"


def decode(reply: Reply) -> Codes:
    """The codes in one control unit's reply to a service of `SERVICES`."""
    if reply.quality is not Quality.OK:
        return Codes(reply.quality, detail=reply.detail)
    found: dict[str, None] = {}
    for message in reply.messages:
        codes = _decode_message(message[1:])
        if codes is None:
            return Codes(Quality.MALFORMED, detail="the number of codes and their bytes disagree")
        found.update(dict.fromkeys(codes))
    return Codes(Quality.OK, tuple(found))


def _decode_message(data: bytes) -> list[str] | None:
    """Codes of the bytes after the service id; None where they do not decode.

    On CAN (ISO 15765-4) a byte with the number of codes comes first, so that the bytes are odd in
    number; on older buses there is none and unused places are 00 00.
    """
    counted = len(data) % 2 == 1
    pairs = data[1:] if counted else data
    codes = [
        code_of(pairs[i], pairs[i + 1])
        for i in range(0, len(pairs), 2)
        if pairs[i : i + 2] != b"\0\0"
    ]
    if not data or (counted and data[0] != len(codes)):
        return None
    return codes
