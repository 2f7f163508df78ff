"""The vehicle identification number: as service 09 tells it, and what can be read from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd import wmi
from nexus_plugins.obd.answer import Reply

REQUEST: Final = "0902"

_VIN: Final = re.compile(rb"[A-HJ-NPR-Z0-9]{17}")
"""ISO 3779: 17 characters without I, O and Q."""


@dataclass(frozen=True, slots=True)
class Vin:
    """What one control unit said. The number is personal data, so it stays out of `repr`."""

    quality: Quality
    number: str | None = field(default=None, repr=False)
    detail: str | None = None


def decode(reply: Reply) -> Vin:
    """The VIN in a reply to `REQUEST` (SAE J1979, INFOTYPE 02).

    On CAN one message carries the number of items, 1, and the 17 characters. Older buses send five
    messages numbered 1 to 5 with four characters each, the first three of all being NUL.
    """
    if reply.quality is not Quality.OK:
        return Vin(reply.quality, detail=reply.detail)
    if [message[2:3] for message in reply.messages] != [
        bytes([i + 1]) for i in range(len(reply.messages))
    ]:
        return Vin(Quality.MALFORMED, detail="parts of the VIN are missing or out of order")
    number = b"".join(message[3:] for message in reply.messages).lstrip(b"\0")
    if not _VIN.fullmatch(number):
        return Vin(Quality.MALFORMED, detail="not 17 characters of a VIN")
    return Vin(Quality.OK, number.decode("ascii"))


_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
"""49 CFR 565.15(c)(2), table IV; the same in annex A of GB 16735."""
_LETTERS: Final = dict(
    zip(
        "ABCDEFGHJKLMNPRSTUVWXYZ",
        (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9),
        strict=True,
    )
)
"""49 CFR 565.15(c)(1), table III."""
_YEARS: Final = "ABCDEFGHJKLMNPRSTVWXY123456789"
"""Position 10, 49 CFR 565.15(d)(1), table VI: 1980 to 2009, and again from 2010 on."""
_FIRST_YEAR: Final = 1980
_FIRST_OBD_YEAR: Final = 1994
"""The first model year with OBD II (13 CCR 1968.1); none that answers here is older."""
_CHINA: Final = "L"


def describe(number: str) -> dict[str, Any]:
    """What the VIN itself says, as keys of `vehicle.identified`; None where it does not say.

    vin_check: `ok` or `wrong` where the region prescribes a check digit: North America (49 CFR 565)
    and China (GB 16735); elsewhere `not used`. region: ISO 3780. maker: see `wmi`.
    """
    return {
        "vin_check": _check(number),
        "maker": wmi.maker_of(number[:3]),
        "model_year": model_year(number),
        "region": wmi.region_of(number[:3]),
    }


def check_digit(number: str) -> str:
    """The character that position 9 must have: the weighted sum modulo 11, with X for 10."""
    values = (_LETTERS[each] if each in _LETTERS else int(each) for each in number)
    rest = sum(w * v for w, v in zip(_WEIGHTS, values, strict=True)) % 11
    return "X" if rest == 10 else str(rest)


def _check(number: str) -> str:
    prescribed = wmi.region_of(number[:3]) == wmi.NORTH_AMERICA or number[0] == _CHINA
    if not prescribed:
        return "not used"
    return "ok" if check_digit(number) == number[8] else "wrong"


def model_year(number: str) -> int | None:
    """The model year where the VIN says it without doubt, else None.

    Position 10 repeats every 30 years. In North America position 7 tells the two cycles of cars and
    light trucks apart: a digit before 2010, a letter since (49 CFR 565.15(b)). Heavy vehicles may
    have digits there still, so a year before OBD II is no year. Elsewhere nothing tells the cycle,
    or the position is the maker's own.
    """
    if wmi.region_of(number[:3]) != wmi.NORTH_AMERICA or number[9] not in _YEARS:
        return None
    year = _FIRST_YEAR + _YEARS.index(number[9])
    if number[6].isalpha():
        year += len(_YEARS)
    return year if year >= _FIRST_OBD_YEAR else None
