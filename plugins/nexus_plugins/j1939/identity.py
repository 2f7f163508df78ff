"""What control units say of the vehicle and of themselves (SAE J1939-71)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.plugin import Quality

_VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
"""ISO 3779: 17 characters without I, O and Q."""
_UNUSED: Final = b"\x00\xff "
"""What fills places that have no character."""


@dataclass(frozen=True, slots=True)
class Vin:
    """What one control unit said (PGN 65260). The number is personal data: no `repr` has it."""

    quality: Quality
    number: str | None = field(default=None, repr=False)


def vin(data: bytes) -> Vin:
    """Text that ends with an asterisk; nothing but filling where there is none."""
    text = data.split(b"*", 1)[0].strip(_UNUSED)
    if not text:
        return Vin(Quality.ABSENT)
    number = text.decode("ascii", "replace").upper()
    return Vin(Quality.OK, number) if _VIN.fullmatch(number) else Vin(Quality.MALFORMED)


def component(data: bytes) -> dict[str, str]:
    """Make, model, serial and unit number (PGN 65259), each ended by an asterisk; those that are
    not told are not there.
    """
    keys = ("make", "model", "serial_number", "unit_number")
    texts = [_text(part) for part in data.split(b"*")]
    return {key: text for key, text in zip(keys, texts, strict=False) if text}


def software(data: bytes) -> str | None:
    """Names of software (PGN 65242): their number, then each ended by an asterisk."""
    texts = [_text(part) for part in data[1:].split(b"*")]
    return ", ".join(text for text in texts if text) or None


def _text(part: bytes) -> str | None:
    """A field's text; None where it has none that is for people, or may be the VIN."""
    text = part.strip(_UNUSED).decode("ascii", "replace")
    if not text.isprintable() or "\ufffd" in text or _VIN.search(text.upper()):
        return None
    return text[:100] or None
