"""What scans and orders to clear say, as far as the life of trouble codes depends on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

STORED: Final = "stored"
PENDING: Final = "pending"
PERMANENT: Final = "permanent"
KINDS: Final = (STORED, PENDING, PERMANENT)
"""Services 03, 07 and 0A of SAE J1979, in the order in which they are shown."""

NOT_ASKED: Final = "not asked"
_WHY: Final = {"absent": "did not answer", "refused": "refused", "malformed": "malformed"}

Key = tuple[str, str]
"""(control unit, code)"""


class Origin(NamedTuple):
    """Which event said it. time is in ns since 1970."""

    time: int
    device_id: int
    position: int
    scan_id: str | None


class Answer(NamedTuple):
    """What a control unit said about one kind of codes; no code means clean only if ok.

    Codes are there all the same: of two questions one may be refused (J1939's DM2, say).
    """

    quality: str
    codes: frozenset[str]

    @property
    def ok(self) -> bool:
        return self.quality == "ok"


Answers = Mapping[str, Answer]
"""kind → answer; a kind that is not here was not asked."""


class Scan(NamedTuple):
    """A scan, by control unit; one that is not here was not asked."""

    origin: Origin
    modules: Mapping[str, Answers]

    @classmethod
    def of(cls, origin: Origin, data: Mapping[str, Any]) -> Scan:
        """From the data of a `scan.completed` that has been read.

        A kind that is not known here, of a newer box, says nothing of the others: it is left aside.
        """
        modules: dict[str, dict[str, Answer]] = {}
        for module in data["modules"]:
            answers = modules.setdefault(module["ecu"], {})
            for kind in KINDS:
                if said := module["answers"].get(kind):
                    answers[kind] = Answer(said["quality"], frozenset(said["codes"]))
        return cls(origin, modules)

    def answers(self, ecu: str) -> Answers:
        return self.modules.get(ecu, {})

    @property
    def codes(self) -> set[Key]:
        """All that were shown."""
        return {
            (ecu, code)
            for ecu, answers in self.modules.items()
            for answer in answers.values()
            for code in answer.codes
        }


class Clearing(NamedTuple):
    """An order to clear, and the control units that have cleared."""

    origin: Origin
    ecus: frozenset[str]

    @classmethod
    def of(cls, origin: Origin, data: Mapping[str, Any]) -> Clearing:
        """From the data of a `dtc.cleared` that has been read."""
        return cls(origin, frozenset(one["ecu"] for one in data["ecus"] if one["outcome"] == "ok"))


def shown_as(answers: Answers, code: str) -> frozenset[str]:
    """The kinds under which *code* was shown."""
    return frozenset(kind for kind, said in answers.items() if code in said.codes)


def unsaid(answers: Answers, kinds: Collection[str]) -> dict[str, str]:
    """Which of *kinds* nobody has answered, and why."""
    return {
        kind: NOT_ASKED if kind not in answers else _WHY.get(answers[kind].quality, "malformed")
        for kind in KINDS
        if kind in kinds and not (kind in answers and answers[kind].ok)
    }
