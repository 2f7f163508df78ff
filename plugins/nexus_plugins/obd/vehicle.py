"""Which vehicle is at the adapter: its control units, what they support, and its VIN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd import pids, vin
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.vin import Vin

_LAST_RANGE: Final = 0xE0


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle that answered.

    supported: control unit → PIDs; vin_ecu: who told the VIN; scales: control unit → how it scales
    some of its values, for `pids.readings`.
    """

    protocol: str | None
    supported: dict[str, frozenset[int]]
    vin: Vin
    vin_ecu: str | None = None
    scales: Mapping[str, pids.Scales] = field(default_factory=dict)
    all_pids: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        union = frozenset[int]().union(*self.supported.values())
        object.__setattr__(self, "all_pids", union)

    def supporters(self, pid: int) -> list[str]:
        """The control units that say they know *pid*."""
        return [ecu for ecu, known in self.supported.items() if pid in known]

    def scales_of(self, ecu: str) -> pids.Scales:
        """How *ecu* scales some of its values."""
        return self.scales.get(ecu, {})

    def said_by_vin(self) -> dict[str, Any]:
        """Keys of `vehicle.identified` that come from the VIN; none where it is not known."""
        return {} if self.vin.number is None else vin.describe(self.vin.number)


@dataclass(frozen=True, slots=True)
class NoVehicle:
    """Nobody could be identified."""

    quality: Quality
    detail: str


async def identify(elm: Elm327) -> Vehicle | NoVehicle:
    """Ask who is there. Raises AdapterError."""
    supported: dict[str, frozenset[int]] = {}
    base = 0
    while True:
        answer = await elm.ask(f"01{base:02X}")
        for reply in answer.replies:
            claimed = pids.supported(base, reply)
            if claimed is not None:
                supported[reply.ecu] = supported.get(reply.ecu, frozenset()) | claimed
        if base == 0 and not supported:
            return _nobody(answer)
        base += pids.RANGE
        if base > _LAST_RANGE or not any(base in known for known in supported.values()):
            break
    number, ecu = await read_vin(elm)
    scales = await _read_scales(elm, supported)
    return Vehicle(await elm.protocol(), supported, number, ecu, scales)


async def _read_scales(
    elm: Elm327, supported: dict[str, frozenset[int]]
) -> dict[str, dict[int, bytes | None]]:
    """What each control unit that has a scaling of its own says of it."""
    scales: dict[str, dict[int, bytes | None]] = {}
    for pid in pids.SCALES:
        ecus = [ecu for ecu, known in supported.items() if pid in known]
        if not ecus:
            continue
        answer = await elm.ask(pids.PIDS[pid].request)
        for ecu in ecus:
            scales.setdefault(ecu, {})[pid] = pids.scale_of(pid, answer.of(ecu))
    return scales


def _nobody(answer: Answer) -> NoVehicle:
    qualities = [reply.quality for reply in answer.replies]
    if Quality.REFUSED in qualities:
        return NoVehicle(Quality.REFUSED, "the vehicle refuses to say what it supports")
    if Quality.MALFORMED in (*qualities, answer.otherwise):
        return NoVehicle(Quality.MALFORMED, "what answers cannot be understood")
    return NoVehicle(Quality.ABSENT, f"no vehicle answers ({answer.detail}); is the ignition on?")


async def read_vin(elm: Elm327) -> tuple[Vin, str | None]:
    """The VIN and who told it: of several control units the first, by name, that knows it."""
    answer = await elm.ask(vin.REQUEST)
    heard = [(vin.decode(reply), reply.ecu) for reply in answer.replies]
    for number, ecu in heard:
        if number.quality is Quality.OK:
            return number, ecu
    if heard:
        return heard[0]
    return Vin(answer.otherwise, detail=answer.detail), None
