"""Finds out which control units there are, and which car they are in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nexus_agent.plugin import PluginError, Progress, Quality
from nexus_plugins.uds import identification
from nexus_plugins.uds.client import TESTER_PRESENT
from nexus_plugins.uds.talk import Talk

_STEP = 16
"""How often progress is told."""
_BEST_FIRST = (Quality.OK, Quality.MALFORMED, Quality.REFUSED, Quality.ABSENT)


@dataclass(slots=True)
class Found:
    """Who is at one link. there: the targets that answer. silent: others, that are known to exist
    or have answered before, and why nothing is known of them. vins: what was said of the VIN.
    """

    there: list[int] = field(default_factory=list)
    silent: dict[int, str] = field(default_factory=dict)
    vins: list[tuple[Quality, str | None]] = field(default_factory=list, repr=False)

    def expect(self, targets: Iterable[int], gone: str | None) -> None:
        """Note that *targets* were there before; gone: why the link is lost, if it is."""
        for target in targets:
            if target not in self.there:
                silence = gone or "it has answered before, and does not now"
                self.silent.setdefault(target, silence)

    @property
    def vin(self) -> str | None:
        """The VIN that most tell: a used control unit may still tell that of another car."""
        told = Counter(vin for _, vin in self.vins if vin is not None)
        return told.most_common(1)[0][0] if told else None


async def find(talk: Talk, candidates: Iterable[int], progress: Progress) -> Found:
    """Ask every candidate whether it is there; any answer, a negative one too, is a yes."""
    found, asked = Found(), tuple(candidates)
    for number, target in enumerate(asked, 1):
        if number % _STEP == 1:
            progress(f"{talk.name}: looking for modules, {number} of {len(asked)}")
        reply = await talk.ask(target, TESTER_PRESENT, 1)
        if talk.gone is not None:
            break
        if reply.quality is not Quality.ABSENT:
            found.there.append(target)
        elif reply.there:
            found.silent[target] = reply.detail or "no answer"
    return found


async def read_vins(talk: Talk, found: Found, progress: Progress) -> None:
    """Ask everybody who is there for the VIN."""
    progress(f"{talk.name}: reading the VIN")
    for target in found.there:
        reply = await talk.ask(target, identification.request(identification.VIN), 2)
        found.vins.append(identification.vin_of(reply))


def car_of(everything: Iterable[Found]) -> tuple[Quality, str | None]:
    """How well the VIN is known, and the VIN. Raises PluginError where the links tell two."""
    everything = list(everything)
    vins = {found.vin for found in everything} - {None}
    if len(vins) > 1:
        raise PluginError("The links lead to different cars: say which one with `adapter`.")
    told = [quality for found in everything for quality, _ in found.vins]
    quality = min(told, key=_BEST_FIRST.index, default=Quality.ABSENT)
    return quality, next(iter(vins), None)
