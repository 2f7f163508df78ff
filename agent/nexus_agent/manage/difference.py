"""What changed in a car's trouble codes from one scan to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.protocol import Quality
from nexus_agent.protocol.catalogue.scans import Codes, FixedCode, FoundCode, Module, Unknown

KINDS: Final = ("stored", "pending", "permanent")
"""In the order in which they are told."""

_WHY: Final = {
    Quality.ABSENT: "did not answer",
    Quality.REFUSED: "refused",
    Quality.MALFORMED: "malformed",
}


@dataclass(slots=True)
class Difference:
    """As in `scan.diff`."""

    fixed: list[FixedCode] = field(default_factory=list)
    remaining: list[FoundCode] = field(default_factory=list)
    permanent: list[FoundCode] = field(default_factory=list)
    new: list[FoundCode] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)


def compare(before: Iterable[Module], after: Iterable[Module]) -> Difference:
    """Compare two scans of one car.

    A code is fixed only if its control unit now answered every question that showed it, and the one
    for stored codes, without it; likewise it is permanent only if those that answered it before and
    the one for stored codes now lack it. Where an answer is missing, the kind is listed as unknown,
    with the scan that lacks it and the codes of the earlier scan that nobody can now speak for.
    """
    then, now = _Said(before), _Said(after)
    found = Difference()
    unclear: dict[tuple[str, str], list[str]] = {}
    for ecu in sorted({*then.answers, *now.answers}):
        was = {code.code: code for code in found_codes(ecu, then.of(ecu))}
        are = {code.code: code for code in found_codes(ecu, now.of(ecu))}
        for name in sorted({*was, *are}):
            needed = dict.fromkeys([*(was[name].kinds if name in was else ()), "stored"])
            missing = [kind for kind in needed if now.quality(ecu, kind) is not Quality.OK]
            if (code := are.get(name)) is None:
                if not missing:
                    found.fixed.append(FixedCode(code=name, ecu=ecu))
                for kind in missing:
                    unclear.setdefault((ecu, kind), []).append(name)
            elif name not in was:
                found.new.append(code)
            elif code.kinds == ("permanent",) and not missing:
                found.permanent.append(code)
            else:
                found.remaining.append(code)
    found.unknown = [
        *_unknown("before", then, now, {}),
        *_unknown("after", now, then, unclear),
    ]
    return found


def found_codes(ecu: str, answers: Mapping[str, Codes]) -> list[FoundCode]:
    """The codes of one control unit, each with the kinds in which it reports it."""
    kinds: dict[str, list[str]] = {}
    active: dict[str, bool] = {}
    for kind in KINDS:
        if (said := answers.get(kind)) is None:
            continue
        for code in said.codes:
            kinds.setdefault(code, []).append(kind)
            if said.active is not None:
                active[code] = active.get(code, False) or code in said.active
    return [
        FoundCode(code=code, kinds=tuple(kinds[code]), ecu=ecu, active=active[code])
        if code in active
        else FoundCode(code=code, kinds=tuple(kinds[code]), ecu=ecu)
        for code in sorted(kinds)
    ]


class _Said:
    """One of the two scans."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self.answers = {module.ecu: module.answers for module in modules}
        self.asked = {
            (_way(ecu), kind) for ecu, answers in self.answers.items() for kind in answers
        }

    def of(self, ecu: str) -> Mapping[str, Codes]:
        return self.answers.get(ecu, {})

    def quality(self, ecu: str, kind: str) -> Quality:
        said = self.of(ecu).get(kind)
        return Quality.ABSENT if said is None else said.quality

    def why(self, ecu: str, kind: str) -> str:
        """Why it knows nothing. On one way a kind is asked of everyone, or of nobody."""
        quality = self.quality(ecu, kind)
        return _WHY[quality] if (_way(ecu), kind) in self.asked else "not asked"


def _way(ecu: str) -> str:
    """How a control unit was asked: the word before its address, none on OBD."""
    return ecu.partition(" ")[0] if " " in ecu else ""


def _unknown(
    name: str, scan: _Said, other: _Said, unclear: Mapping[tuple[str, str], Sequence[str]]
) -> list[Unknown]:
    """The kinds of codes of which *scan*, called *name*, knows nothing for a control unit."""
    asked = scan.asked | other.asked
    return [
        Unknown(
            ecu=ecu,
            kind=kind,
            quality=quality,
            why=scan.why(ecu, kind),
            scan=name,
            codes=tuple(unclear.get((ecu, kind), ())),
        )
        for ecu in sorted({*scan.answers, *other.answers})
        for kind in KINDS
        if (_way(ecu), kind) in asked and (quality := scan.quality(ecu, kind)) is not Quality.OK
    ]
