"""How a car's codes changed from one scan to the next."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nexus_console.vehicles.scans import KINDS, PERMANENT, STORED, Scan, shown_as, unsaid


class Outcome(enum.StrEnum):
    """permanent: it was more than that before. unknown: one of the two scans cannot tell."""

    NEW = "new"
    REMAINING = "remaining"
    PERMANENT = "permanent"
    FIXED = "fixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CodeChange:
    """One code of one control unit. unsaid: the kinds that nobody answered, and why."""

    ecu: str
    code: str
    outcome: Outcome
    before: tuple[str, ...]
    after: tuple[str, ...]
    unsaid: dict[str, str]


def difference(before: Scan, after: Scan) -> list[CodeChange]:
    """Every code that one of the two has shown, by control unit and code."""
    return [_change(before, after, ecu, code) for ecu, code in sorted(before.codes | after.codes)]


def _change(before: Scan, after: Scan, ecu: str, code: str) -> CodeChange:
    then, now = shown_as(before.answers(ecu), code), shown_as(after.answers(ecu), code)
    silent: dict[str, str] = {}
    if not now:
        silent = unsaid(after.answers(ecu), then | {STORED})
        outcome = Outcome.UNKNOWN if silent else Outcome.FIXED
    elif not then:
        silent = unsaid(before.answers(ecu), now | {STORED})
        outcome = Outcome.UNKNOWN if silent else Outcome.NEW
    elif now == {PERMANENT} and then != now and not unsaid(after.answers(ecu), then):
        outcome = Outcome.PERMANENT
    else:
        outcome = Outcome.REMAINING
    return CodeChange(ecu, code, outcome, _in_order(then), _in_order(now), silent)


def _in_order(kinds: frozenset[str]) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if kind in kinds)
