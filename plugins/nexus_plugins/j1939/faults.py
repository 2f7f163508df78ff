"""Which faults are there, from DM1s that come each second: when one appears, and when it goes.

Pure: time comes in with each message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

from nexus_plugins.j1939.dm import Diagnosis, Dtc, Lamps

MAX_OPEN: Final = 1000
"""Faults that are kept apart, so that a bus gone mad fills neither memory nor state."""

_STOPS: Final = frozenset({"on", "slow flash", "fast flash"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One code of one control unit that has been told as active.

    name: the control unit's NAME, where it was known. alert: the red stop lamp was on.
    """

    address: int
    dtc: Dtc
    name: str | None = None
    lamps: Lamps | None = None
    alert: bool = False

    @property
    def key(self) -> tuple[int, int, int]:
        return self.address, self.dtc.spn, self.dtc.fmi

    def to_state(self) -> list[Any]:
        """What a restart needs."""
        dtc = self.dtc
        return [self.address, dtc.spn, dtc.fmi, dtc.occurrences, self.name, self.alert]

    @classmethod
    def from_state(cls, data: list[Any]) -> Self:
        address, spn, fmi, occurrences, name, alert = data
        return cls(address, Dtc(spn, fmi, occurrences), name, alert=alert)


@dataclass(frozen=True, slots=True)
class Change:
    """What has become of a fault. forgotten: nobody can speak for it any more."""

    fault: Fault
    state: Literal["active", "gone", "forgotten"]


@dataclass(slots=True)
class _Unit:
    """One control unit. missing: codes that are open → since when DM1 is without them."""

    seen: dict[tuple[int, int], float] = field(default_factory=dict)
    """Codes that are not told yet → since when they are in DM1."""
    open: dict[tuple[int, int], Fault] = field(default_factory=dict)
    missing: dict[tuple[int, int], float] = field(default_factory=dict)
    lamps: Lamps | None = None


class Faults:
    """appear_s, gone_s: see the settings. told: faults that were active before a restart.

    A fault goes because DM1 says so, and never by silence: older control units send a last DM1
    without it and then none while nothing is wrong, so time counts from that one while the control
    unit is heard. A DM1 with codes that cannot be read speaks for those that can, and against none.
    """

    def __init__(self, appear_s: float, gone_s: float, told: Iterable[Fault] = ()) -> None:
        self.untold = 0
        """Faults that were not told since there were too many."""
        self._appear_s = appear_s
        self._gone_s = gone_s
        self._units: dict[int, _Unit] = {}
        self._count = 0
        for fault in told:
            self._unit(fault.address).open[fault.dtc.spn, fault.dtc.fmi] = fault
            self._count += 1

    def open(self) -> list[Fault]:
        """All that are active."""
        return [fault for unit in self._units.values() for fault in unit.open.values()]

    def take(
        self, now: float, address: int, name: str | None, diagnosis: Diagnosis
    ) -> list[Change]:
        """A DM1 of the control unit at *address*, and what it changes."""
        unit = self._unit(address)
        unit.lamps = diagnosis.lamps
        present = {(dtc.spn, dtc.fmi): dtc for dtc in diagnosis.dtcs}
        if diagnosis.trouble is None or len(unit.seen) > MAX_OPEN:
            for key in unit.seen.keys() - present.keys():
                del unit.seen[key]
        if diagnosis.trouble is None:
            for key in unit.open.keys() - present.keys():
                unit.missing.setdefault(key, now)
        changes = []
        for key, dtc in present.items():
            unit.missing.pop(key, None)
            if key not in unit.open and self._is_due(now, unit, key):
                changes += self._appear(unit, Fault(address, dtc, name, diagnosis.lamps))
        return changes + self._gone(now, unit)

    def tick(self, now: float, is_heard: Callable[[int], bool]) -> list[Change]:
        """What time alone changes, in those control units that are heard."""
        return [
            change
            for address, unit in self._units.items()
            if unit.missing and is_heard(address)
            for change in self._gone(now, unit)
        ]

    def meet(self, address: int, name: str) -> list[Change]:
        """Who claims *address* may be another than before: faults of one with another NAME are
        forgotten, since nobody can speak for them now.
        """
        unit = self._units.get(address)
        others = [
            fault
            for fault in (unit.open.values() if unit else ())
            if fault.name is not None and fault.name != name
        ]
        for fault in others:
            self._close(self._units[address], fault)
        return [Change(fault, "forgotten") for fault in others]

    def _unit(self, address: int) -> _Unit:
        return self._units.setdefault(address, _Unit())

    def _is_due(self, now: float, unit: _Unit, key: tuple[int, int]) -> bool:
        first = unit.seen.get(key)
        if first is None:
            unit.seen[key] = now
            return not self._appear_s
        return now - first >= self._appear_s

    def _appear(self, unit: _Unit, fault: Fault) -> list[Change]:
        if self._count >= MAX_OPEN:
            self.untold += 1
            return []
        stop = fault.lamps is not None and fault.lamps.stop in _STOPS
        fault, key = replace(fault, alert=stop), (fault.dtc.spn, fault.dtc.fmi)
        del unit.seen[key]
        unit.open[key] = fault
        self._count += 1
        return [Change(fault, "active")]

    def _gone(self, now: float, unit: _Unit) -> list[Change]:
        over = [key for key, since in unit.missing.items() if now - since >= self._gone_s]
        changes = [Change(replace(unit.open[key], lamps=unit.lamps), "gone") for key in over]
        for change in changes:
            self._close(unit, change.fault)
        return changes

    def _close(self, unit: _Unit, fault: Fault) -> None:
        key = (fault.dtc.spn, fault.dtc.fmi)
        del unit.open[key]
        unit.missing.pop(key, None)
        self._count -= 1
