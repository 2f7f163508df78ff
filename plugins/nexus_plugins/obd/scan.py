"""Scanning and clearing trouble codes: what is asked, and what the events about it say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nexus_agent.plugin import Progress, Quality
from nexus_plugins.obd import dtc
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.dtc import SERVICES, Modules
from nexus_plugins.obd.elm327 import Elm327

CLEAR: Final = "04"
"""SAE J1979 section 6.4: clear and reset emission-related diagnostic information."""

_WORST_FIRST: Final = (Quality.REFUSED, Quality.MALFORMED, Quality.OK, Quality.ABSENT)


async def read(elm: Elm327, known: Iterable[str], progress: Progress) -> Modules:
    """Ask each service once and note what every control unit said.

    They are asked all at once, as the standard has it. Listed are those of *known* and those that
    answer: silence is a finding. Raises AdapterError.
    """
    answers: dict[str, Answer] = {}
    for kind, service in SERVICES.items():
        progress(f"reading {kind} codes")
        answers[kind] = await elm.ask(service)
    ecus = {*known, *(reply.ecu for answer in answers.values() for reply in answer.replies)}
    return {
        ecu: {kind: dtc.decode(answer.of(ecu)) for kind, answer in answers.items()}
        for ecu in sorted(ecus)
    }


def to_json(modules: Modules, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Control units with what they said of each kind of codes, and with *names* where known."""
    return [
        {
            "ecu": ecu,
            "answers": {kind: codes.to_json() for kind, codes in answers.items()},
            **({"name": names[ecu]} if ecu in names else {}),
        }
        for ecu, answers in modules.items()
    ]


def answered(modules: Modules) -> list[str]:
    """The control units that said anything, a refusal too."""
    return [
        ecu
        for ecu, answers in modules.items()
        if any(codes.quality in {Quality.OK, Quality.REFUSED} for codes in answers.values())
    ]


def cleared(answer: Answer, known: Iterable[str], car: dict[str, str]) -> dict[str, Any]:
    """The data of `dtc.cleared`. Its outcome is ok if everybody who answered agreed."""
    ecus = [
        {"ecu": ecu, "outcome": reply.quality, "detail": reply.detail}
        for ecu in sorted({*known, *(reply.ecu for reply in answer.replies)})
        for reply in (answer.of(ecu),)
    ]
    outcomes = [entry["outcome"] for entry in ecus] or [answer.otherwise]
    return {**car, "outcome": min(outcomes, key=_WORST_FIRST.index), "ecus": ecus}
