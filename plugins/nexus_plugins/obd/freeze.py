"""Freeze frames: what a control unit kept of the moment in which it found a fault.

Source: SAE J1979 section 6.2 (service 02). They are asked for by number: the request is service,
PID and frame, and the answer repeats all three. PID 02 of a frame is the code that caused it, 0000
where the frame is empty; PID 00 lists the values in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from nexus_agent.plugin import Progress, Quality
from nexus_plugins.obd import pids
from nexus_plugins.obd.answer import Answer, Reply
from nexus_plugins.obd.dtc import code_of
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.listing import one
from nexus_plugins.obd.pids import FREEZE_CODE, PIDS, RANGE, Field, Reading
from nexus_plugins.obd.vehicle import Vehicle

_MOST: Final = 16
"""More frames than control units keep: for an adapter that has an answer to whatever is asked."""
_LAST_RANGE: Final = 0xE0
_NOT_VALUES: Final = frozenset({0x01, FREEZE_CODE, 0x41})
"""Readiness is no part of a frame, and the code stands apart."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What PID 02 of a frame says. code is None where the frame is empty or quality is not ok."""

    quality: Quality
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of one control unit. code: None where it was not told."""

    ecu: str
    number: int
    code: str | None
    values: tuple[tuple[int, Field, Reading], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "ecu": self.ecu,
            "frame": self.number,
            "code": self.code,
            "values": [_value_json(*value) for value in self.values],
        }


@dataclass(frozen=True, slots=True)
class Frames:
    """All frames of all control units, and what each of these said to the first question."""

    frames: list[Frame] = field(default_factory=list)
    causes: dict[str, Cause] = field(default_factory=dict)

    def answers_json(self) -> list[dict[str, Any]]:
        """`[{"ecu", "quality", "detail", "frames"}]`; frames is how many there are."""
        return [
            {
                "ecu": ecu,
                "quality": cause.quality,
                "detail": cause.detail,
                "frames": sum(frame.ecu == ecu for frame in self.frames),
            }
            for ecu, cause in sorted(self.causes.items())
        ]


def _value_json(pid: int, what: Field, reading: Reading) -> dict[str, Any]:
    data = {
        "pid": pid,
        "name": what.name,
        "value": reading.value,
        "unit": what.unit,
        "quality": reading.quality,
    }
    return data if reading.detail is None else {**data, "detail": reading.detail}


def framed(reply: Reply, number: int) -> Reply:
    """The reply to `02 PID FRAME` as service 01 would have given it: without the frame's number.

    An answer about another frame is malformed.
    """
    reply = one(reply)
    if reply.quality is not Quality.OK:
        return reply
    payload = reply.payload
    if payload[2:3] != bytes([number]):
        return Reply(reply.ecu, Quality.MALFORMED, detail="an answer about another frame")
    return Reply(reply.ecu, Quality.OK, (payload[:2] + payload[3:],))


def cause_of(reply: Reply, number: int) -> Cause:
    """The code in a reply to PID 02 of frame *number*."""
    reply = framed(reply, number)
    if reply.quality is not Quality.OK:
        return Cause(reply.quality, detail=reply.detail)
    data = reply.payload[2:]
    if len(data) != 2:
        return Cause(Quality.MALFORMED, detail=f"{len(data)} data bytes, 2 expected")
    return Cause(Quality.OK, code_of(*data) if any(data) else None)


async def read(elm: Elm327, vehicle: Vehicle, progress: Progress) -> Frames:
    """Every frame of every control unit, from 0 on until nobody has more. Raises AdapterError.

    Frame 0 is taken to be there also where its code is not told but its list of values is.
    """
    found = Frames()
    for number in range(_MOST):
        progress(f"reading freeze frame {number}")
        answer = await elm.ask(_request(FREEZE_CODE, number))
        causes = {
            ecu: cause_of(answer.of(ecu), number)
            for ecu in _ecus(vehicle, answer, known=number == 0)
        }
        if number == 0:
            found.causes.update(causes)
        having = {ecu: cause for ecu, cause in causes.items() if cause.code is not None}
        unclear = {
            ecu: cause
            for ecu, cause in causes.items()
            if number == 0 and cause.quality in {Quality.REFUSED, Quality.MALFORMED}
        }
        if not having and not unclear:
            break
        claims = await _claims(elm, number)
        having |= {ecu: cause for ecu, cause in unclear.items() if claims.get(ecu)}
        values = await _values(elm, vehicle, number, having, claims)
        found.frames.extend(
            Frame(ecu, number, cause.code, tuple(values[ecu])) for ecu, cause in having.items()
        )
        if not having:
            break
    return found


def _ecus(vehicle: Vehicle, answer: Answer, *, known: bool) -> list[str]:
    listed = set(vehicle.supported) if known else set()
    return sorted(listed | {reply.ecu for reply in answer.replies})


async def _claims(elm: Elm327, number: int) -> dict[str, frozenset[int]]:
    """Which values each control unit says there are in a frame."""
    claims: dict[str, frozenset[int]] = {}
    base = 0
    while base <= _LAST_RANGE:
        answer = await elm.ask(_request(base, number))
        for reply in answer.replies:
            listed = pids.supported(base, framed(reply, number))
            if listed is not None:
                claims[reply.ecu] = claims.get(reply.ecu, frozenset()) | listed
        base += RANGE
        if not any(base in listed for listed in claims.values()):
            break
    return claims


async def _values(
    elm: Elm327,
    vehicle: Vehicle,
    number: int,
    having: dict[str, Cause],
    claims: dict[str, frozenset[int]],
) -> dict[str, list[tuple[int, Field, Reading]]]:
    """The values of a frame by control unit.

    Where the list was not told, what the control unit knows live is tried; then silence is no
    finding.
    """
    wanted = {ecu: claims.get(ecu) or vehicle.supported.get(ecu, frozenset()) for ecu in having}
    values: dict[str, list[tuple[int, Field, Reading]]] = {ecu: [] for ecu in having}
    for pid in sorted(frozenset[int]().union(*wanted.values()) - _NOT_VALUES):
        if pid not in PIDS:
            continue
        answer = await elm.ask(_request(pid, number))
        for ecu in having:
            reply = framed(answer.of(ecu), number)
            heard = reply.quality is not Quality.ABSENT
            if pid in claims.get(ecu, ()) or (ecu not in claims and heard):
                found = pids.readings(PIDS[pid], reply, vehicle.scales_of(ecu))
                values[ecu] += [(pid, *pair) for pair in found]
    return values


def _request(pid: int, number: int) -> str:
    return f"02{pid:02X}{number:02X}"
