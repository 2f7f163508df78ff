"""A control unit's answer to one question, judged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from udsoncan.ResponseCode import ResponseCode

from nexus_agent.plugin import Quality

NEGATIVE: Final = 0x7F
"""The first byte of a negative response (ISO 14229-1 section 8.7.3)."""
POSITIVE: Final = 0x40
"""Added to the service's identifier in a positive response (section 8.4)."""
PENDING: Final = ResponseCode.RequestCorrectlyReceived_ResponsePending
BUSY: Final = ResponseCode.BusyRepeatRequest

_NRC: Final = {
    code: re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", ", ")).lower()
    # The first name of a code is that of ISO 14229-1; later ones are ISO 15764's for the same.
    for name, code in reversed(tuple(vars(ResponseCode).items()))
    if isinstance(code, int) and code
}


@dataclass(frozen=True, slots=True)
class Reply:
    """data: what follows the service and what it repeats of the question; empty unless ok.

    The data may hold the VIN, so it stays out of `repr`. detail: why there is none, for people.
    there: whether the control unit was heard, or its gateway says that it exists; lost: whether
    there is no use in asking it anything else.
    """

    quality: Quality
    data: bytes = field(default=b"", repr=False)
    detail: str | None = None
    there: bool = True
    lost: bool = False


def describe(nrc: int) -> str:
    """`NRC 0x22, conditions not correct` (ISO 14229-1 table A.1)."""
    name = _NRC.get(nrc, "a reason of the maker's own")
    return f"NRC 0x{nrc:02X}, {name}"


def negative_code(request: bytes, payload: bytes) -> int | None:
    """The code of a negative response to *request*; None where the payload is none."""
    if len(payload) == 3 and payload[0] == NEGATIVE and payload[1] == request[0]:
        return payload[2]
    return None


def read(request: bytes, payload: bytes, echo: int) -> Reply | None:
    """What *payload* says to *request*, or None where it is the answer to another question.

    echo: how many bytes of the question after its first are repeated in a positive response. A
    negative response is exactly three bytes.
    """
    head = bytes([request[0] + POSITIVE]) + request[1 : 1 + echo]
    if payload.startswith(head):
        return Reply(Quality.OK, payload[len(head) :])
    if payload[:2] == bytes([NEGATIVE, request[0]]):
        code = negative_code(request, payload)
        if code is None:
            return Reply(Quality.MALFORMED, detail="a negative response of a wrong length")
        return Reply(Quality.REFUSED, detail=describe(code))
    if payload and payload[0] == head[0] and head.startswith(payload):
        return Reply(Quality.MALFORMED, detail="an answer that is cut short")
    return None
