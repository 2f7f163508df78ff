"""What inspection programmes make of readiness monitors that are not complete.

A verdict is on the readiness alone: lamp and codes are for others to judge. Since October 2025
California's Bureau may ask more of models that it names; its lists are not in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.readiness import Status

_EPA: Final = "40 CFR 85.2222 and 66 FR 18156 (EPA); guidance EPA420-R-01-015, June 2001"
_CARB: Final = (
    "16 CCR 3340.42.2 (California Bureau of Automotive Repair), "
    "with the standards that its Smog Check OBD reference states"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """How many monitors may be incomplete on vehicles of some model years.

    ignition: None where the rule holds for both; last: None where it is still in force; only: the
    monitors that may be among them, None where any may.
    """

    programme: str
    first: int
    last: int | None
    allowed: int
    source: str
    ignition: str | None = None
    only: frozenset[str] | None = None

    def holds(self, year: int, ignition: str) -> bool:
        return self.first <= year <= (self.last or year) and (self.ignition or ignition) == ignition


RULES: Final = (
    Rule("epa", 1996, 2000, 2, _EPA),
    Rule("epa", 2001, None, 1, _EPA),
    Rule("carb", 1996, 1999, 1, _CARB, "spark"),
    Rule("carb", 2000, None, 1, _CARB, "spark", frozenset({"evaporative_system"})),
    Rule("carb", 1998, 2006, 0, _CARB, "compression"),
    Rule("carb", 2007, None, 2, _CARB, "compression", frozenset({"nmhc_catalyst", "pm_filter"})),
)

_SOURCES: Final = {rule.programme: rule.source for rule in RULES}


def verdicts(statuses: Iterable[Status], year: int | None) -> list[dict[str, Any]]:
    """One verdict a programme, as in `readiness.snapshot`; ready is None where nobody can say."""
    known = list(statuses)
    return [_verdict(programme, known, year) for programme in _SOURCES]


def _verdict(programme: str, statuses: list[Status], year: int | None) -> dict[str, Any]:
    incomplete = sorted({name for status in statuses for name in status.incomplete()})
    verdict = {
        "rule": programme,
        "ready": None,
        "incomplete": incomplete,
        "allowed": None,
        "source": _SOURCES[programme],
    }
    doubt = _doubt(statuses)
    if doubt is not None:
        return {**verdict, "reason": doubt}
    if year is None:
        return {**verdict, "reason": "the model year is not known"}
    (ignition,) = _ignitions(statuses)
    rule = next((r for r in RULES if r.programme == programme and r.holds(year, ignition)), None)
    if rule is None:
        reason = f"it has no rule for model year {year} with {ignition} ignition"
        return {**verdict, "reason": reason}
    ready, reason = _judge(rule, incomplete)
    return {**verdict, "ready": ready, "allowed": rule.allowed, "reason": reason}


def _doubt(statuses: list[Status]) -> str | None:
    """Why nobody can give a verdict, whatever the rule."""
    if not statuses:
        return "no control unit tells its readiness"
    for status in statuses:
        if status.quality is not Quality.OK:
            return f"{status.ecu} {_SAID[status.quality]}: {status.detail}"
    if not any(monitor.supported for status in statuses for monitor in status.monitors):
        return "no control unit has any monitor"
    if len(_ignitions(statuses)) > 1:
        return "the control units disagree on whether ignition is by spark or by compression"
    return None


_SAID: Final = {
    Quality.ABSENT: "is silent",
    Quality.REFUSED: "refuses to tell its readiness",
    Quality.MALFORMED: "cannot be understood",
}


def _ignitions(statuses: list[Status]) -> set[str]:
    """Of those that have monitors: others leave the bit as it is."""
    return {
        status.ignition
        for status in statuses
        if status.ignition and any(monitor.supported for monitor in status.monitors)
    }


def _judge(rule: Rule, incomplete: list[str]) -> tuple[bool, str]:
    if rule.only is not None:
        wrong = [name for name in incomplete if name not in rule.only]
        if wrong:
            return False, f"must be complete and is not: {', '.join(wrong)}"
    ready = len(incomplete) <= rule.allowed
    return ready, f"{len(incomplete)} not complete, at most {rule.allowed} may be"
