"""Scanning and clearing trouble codes: what is asked, and what the events about it say."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from nexus_agent.plugin import Progress, Quality
from nexus_plugins.obd import dtc
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.dtc import SERVICES, Codes, Modules
from nexus_plugins.obd.elm327 import Elm327

CLEAR: Final = "04"
"""SAE J1979 section 6.4: clear and reset emission-related diagnostic information."""

_WORST_FIRST: Final = (Quality.REFUSED, Quality.MALFORMED, Quality.OK, Quality.ABSENT)


@dataclass(frozen=True, slots=True)
class Scan:
    """The codes of one vehicle at one time."""

    scan_id: str
    modules: Modules

    @property
    def answered(self) -> bool:
        """Whether anybody told anything."""
        return any(
            codes.quality is Quality.OK
            for answers in self.modules.values()
            for codes in answers.values()
        )

    def dtcs(self) -> list[dict[str, Any]]:
        """`[{"code": "P0301", "kinds": ["stored"], "ecu": "7E8"}]`, by control unit and code."""
        return [
            {"code": code, "kinds": kinds, "ecu": ecu}
            for ecu, answers in self.modules.items()
            for code, kinds in sorted(dtc.kinds_of(answers).items())
        ]

    def modules_json(self, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Control units with what they said of each kind of codes, and with *names* where known."""
        known = {} if names is None else names
        return [
            {
                "ecu": ecu,
                "answers": {kind: codes.to_json() for kind, codes in answers.items()},
                **({"name": known[ecu]} if ecu in known else {}),
            }
            for ecu, answers in self.modules.items()
        ]

    def to_state(self) -> dict[str, Any]:
        """What the next scan of the vehicle needs."""
        return {"scan_id": self.scan_id, "modules": self.modules_json()}

    @classmethod
    def from_state(cls, data: Any) -> Scan:
        modules = {
            module["ecu"]: {
                kind: Codes.from_json(codes) for kind, codes in module["answers"].items()
            }
            for module in data["modules"]
        }
        return cls(data["scan_id"], modules)


def new_id() -> str:
    """A name for a scan that no other has."""
    return uuid.uuid4().hex


async def read(
    elm: Elm327, scan_id: str, known: Iterable[str], previous: Scan | None, progress: Progress
) -> Scan:
    """Ask each service once and note what every control unit said.

    They are asked all at once, as the standard has it. Listed are those of *known*, those that
    answer and those that answered in *previous*: silence is a finding. Raises AdapterError.
    """
    answers: dict[str, Answer] = {}
    for kind, service in SERVICES.items():
        progress(f"reading {kind} codes")
        answers[kind] = await elm.ask(service)
    ecus = {*known, *(reply.ecu for answer in answers.values() for reply in answer.replies)}
    if previous is not None:
        ecus |= {
            ecu
            for ecu, said in previous.modules.items()
            if any(codes.quality in {Quality.OK, Quality.REFUSED} for codes in said.values())
        }
    modules = {
        ecu: {kind: dtc.decode(answer.of(ecu)) for kind, answer in answers.items()}
        for ecu in sorted(ecus)
    }
    return Scan(scan_id, modules)


def observed(scan: Scan, car: dict[str, str]) -> list[dict[str, Any]]:
    """The data of `dtc.observed` for each code, kind and control unit."""
    return [
        {"scan_id": scan.scan_id, **car, "code": code, "kind": kind, "ecu": ecu}
        for ecu, answers in scan.modules.items()
        for kind, codes in answers.items()
        for code in codes.codes
    ]


def diff(scan: Scan, previous: Scan | None, car: dict[str, str]) -> dict[str, Any] | None:
    """The data of `scan.diff`; None where there is no scan to compare with."""
    if previous is None:
        return None
    changes = asdict(dtc.compare(previous.modules, scan.modules))
    return {"before": previous.scan_id, "after": scan.scan_id, **car, **changes}


def cleared(answer: Answer, known: Iterable[str], car: dict[str, str]) -> dict[str, Any]:
    """The data of `dtc.cleared`. Its outcome is ok if everybody who answered agreed."""
    ecus = [
        {"ecu": ecu, "outcome": reply.quality, "detail": reply.detail}
        for ecu in sorted({*known, *(reply.ecu for reply in answer.replies)})
        for reply in (answer.of(ecu),)
    ]
    outcomes = [entry["outcome"] for entry in ecus] or [answer.otherwise]
    return {**car, "outcome": min(outcomes, key=_WORST_FIRST.index), "ecus": ecus}
