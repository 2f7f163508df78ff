"""The vehicle identification number as service 09 PID 02 tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.plugin import Quality
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
