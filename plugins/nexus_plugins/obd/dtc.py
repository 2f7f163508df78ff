"""Diagnostic trouble codes: from bytes to codes, and what changed between two scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Codes:
        return cls(Quality(data["quality"]), tuple(data["codes"]), data["detail"])


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


@dataclass(slots=True)
class Diff:
    """What changed from one scan of a vehicle to the next; lists as in the event `scan.diff`."""

    fixed: list[dict[str, Any]] = field(default_factory=list)
    remaining: list[dict[str, Any]] = field(default_factory=list)
    permanent: list[dict[str, Any]] = field(default_factory=list)
    new: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[dict[str, Any]] = field(default_factory=list)


def compare(before: Modules, after: Modules) -> Diff:
    """Compare two scans of one vehicle.

    A code is fixed only if its control unit now answered every service that showed it, and the one
    for stored codes, without it; likewise it is permanent only if those that answered it before and
    the one for stored codes now lack it. Where an answer is missing, the service is listed as
    unknown, with the scan that lacks it and the codes of the earlier scan that nobody can now speak
    for.
    """
    diff = Diff()
    unclear: dict[tuple[str, str], list[str]] = {}
    for ecu in sorted({*before, *after}):
        was, now = kinds_of(before.get(ecu, {})), kinds_of(after.get(ecu, {}))
        for code in sorted({*was, *now}):
            needed = dict.fromkeys([*was.get(code, ()), "stored"])
            missing = [kind for kind in needed if _quality(after, ecu, kind) is not Quality.OK]
            if code not in now:
                if not missing:
                    diff.fixed.append({"code": code, "ecu": ecu})
                for kind in missing:
                    unclear.setdefault((ecu, kind), []).append(code)
                continue
            entry = {"code": code, "ecu": ecu, "kinds": now[code]}
            if code not in was:
                diff.new.append(entry)
            elif now[code] == ["permanent"] and not missing:
                diff.permanent.append(entry)
            else:
                diff.remaining.append(entry)
    diff.unknown = [
        *_unknown("before", before, after, {}),
        *_unknown("after", after, before, unclear),
    ]
    return diff


_WHY: Final = {
    Quality.ABSENT: "did not answer",
    Quality.REFUSED: "refused",
    Quality.MALFORMED: "malformed",
}


def _unknown(
    name: str, scan: Modules, other: Modules, unclear: Mapping[tuple[str, str], list[str]]
) -> list[dict[str, Any]]:
    """The kinds of codes of which *scan*, called *name*, knows nothing for a control unit.

    Services are asked of all at once, so a kind was asked of everyone or of nobody.
    """
    asked = {kind for answers in scan.values() for kind in answers}
    return [
        {
            "ecu": ecu,
            "kind": kind,
            "quality": quality,
            "why": _WHY[quality] if kind in asked else "not asked",
            "scan": name,
            "codes": unclear.get((ecu, kind), []),
        }
        for ecu in sorted({*scan, *other})
        for kind in SERVICES
        if (quality := _quality(scan, ecu, kind)) is not Quality.OK
    ]


def kinds_of(answers: Mapping[str, Codes]) -> dict[str, list[str]]:
    """Code → kinds in which one control unit reports it."""
    kinds: dict[str, list[str]] = {}
    for kind, codes in answers.items():
        for code in codes.codes:
            kinds.setdefault(code, []).append(kind)
    return kinds


def _quality(modules: Modules, ecu: str, kind: str) -> Quality:
    answers = modules.get(ecu, {})
    return answers[kind].quality if kind in answers else Quality.ABSENT
