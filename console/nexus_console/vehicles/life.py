"""The life of trouble codes: what a car's scans and clearings, in their order, say of each.

Nothing is concluded from silence. A code is gone only where its control unit has answered every
service that had shown it, and the one for stored codes, without it. Service 04 clears stored and
pending codes; a permanent one stays until the car itself has found the fault gone (SAE J1979,
services 04 and 0A).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from nexus_console.vehicles.scans import (
    KINDS,
    PENDING,
    PERMANENT,
    STORED,
    Answers,
    Clearing,
    Key,
    Origin,
    Scan,
    shown_as,
    unsaid,
)

_ACTIVE: Final = frozenset({STORED, PENDING})


class State(enum.StrEnum):
    """What is known of a code.

    unknown: it was there, and its control unit has not said since. cleared: it was ordered away,
    and has not come back. gone: it went by itself, or by a repair.
    """

    PENDING = "pending"
    CONFIRMED = "confirmed"
    PERMANENT = "permanent"
    RETURNED = "returned"
    UNKNOWN = "unknown"
    CLEARED = "cleared"
    GONE = "gone"

    @property
    def present(self) -> bool:
        """Whether the car has it, as far as anybody knows."""
        return self not in (State.UNKNOWN, State.CLEARED, State.GONE)


@dataclass(frozen=True, slots=True)
class Change:
    """A code has another state than before, or other kinds.

    kinds: under which it is there, or was when it was last known. unsaid: which of them nobody has
    answered, and why.
    """

    state: State
    kinds: tuple[str, ...]
    unsaid: dict[str, str]
    origin: Origin


@dataclass(slots=True)
class Life:
    """Changes in their order. times in ns.

    seen: when a scan last showed it. checked: when its control unit last said whether it is there.
    """

    changes: list[Change] = field(default_factory=list)
    seen: int = 0
    checked: int = 0

    @property
    def now(self) -> Change:
        return self.changes[-1]


def lives(told: Iterable[Scan | Clearing]) -> dict[Key, Life]:
    """What *told*, in its order, says of each code that was ever shown."""
    known: dict[Key, _Code] = {}
    for one in told:
        if isinstance(one, Clearing):
            for (ecu, _), code in known.items():
                if ecu in one.ecus:
                    code.clear(one.origin)
            continue
        for key in one.codes - known.keys():
            known[key] = _Code(key[1])
        for (ecu, _), code in known.items():
            code.scan(one.origin, one.answers(ecu))
    return {key: code.life for key, code in known.items()}


class _Code:
    """One code of one control unit, until now."""

    def __init__(self, name: str) -> None:
        self.life = Life()
        self._name = name
        self._state: State | None = None
        self._kinds: frozenset[str] = frozenset()
        # Whether it is known not to be stored or pending, and whether it ever was.
        self._quiet = False
        self._was_active = False
        self._returned = False

    def scan(self, origin: Origin, answers: Answers) -> None:
        shown = shown_as(answers, self._name)
        if shown:
            self._show(origin, shown, answers)
        elif self._is_there:
            self._miss(origin, answers)
        elif not unsaid(answers, {STORED}):
            self.life.checked = origin.time

    def clear(self, origin: Origin) -> None:
        if not self._is_there:
            return
        self._quiet, self._returned = True, False
        self._kinds &= {PERMANENT}
        if not self._kinds:
            self._become(State.CLEARED, origin)
        elif self._state is State.UNKNOWN:
            self._become(State.UNKNOWN, origin, self.life.now.unsaid)
        else:
            self._become(State.PERMANENT, origin)

    @property
    def _is_there(self) -> bool:
        """Whether it is, or may be."""
        return self._state not in (None, State.CLEARED, State.GONE)

    def _show(self, origin: Origin, shown: frozenset[str], answers: Answers) -> None:
        active = bool(shown & _ACTIVE)
        was_away = self._state in (State.CLEARED, State.GONE)
        if active and (was_away or (self._quiet and self._was_active)):
            self._returned = True
        # What was not answered this time is not taken back.
        kept = unsaid(answers, self._kinds)
        self._kinds = shown | kept.keys()
        if active:
            self._was_active, self._quiet = True, False
        elif not self._kinds & _ACTIVE:
            self._returned = False
            self._quiet = self._quiet or not unsaid(answers, {STORED})
        self.life.seen = self.life.checked = origin.time
        self._become(self._by_kinds(), origin, kept)

    def _miss(self, origin: Origin, answers: Answers) -> None:
        silent = unsaid(answers, self._kinds | {STORED})
        if silent:
            self._kinds &= silent.keys()
            self._become(State.UNKNOWN, origin, silent)
            return
        self._kinds, self._returned, self._quiet = frozenset(), False, True
        self.life.checked = origin.time
        self._become(State.GONE, origin)

    def _by_kinds(self) -> State:
        if self._returned:
            return State.RETURNED
        if STORED in self._kinds:
            return State.CONFIRMED
        return State.PENDING if PENDING in self._kinds else State.PERMANENT

    def _become(self, state: State, origin: Origin, silent: dict[str, str] | None = None) -> None:
        kinds = tuple(kind for kind in KINDS if kind in self._kinds)
        before = self.life.changes[-1] if self.life.changes else None
        self._state = state
        if before is None or (before.state, before.kinds) != (state, kinds):
            self.life.changes.append(Change(state, kinds, silent or {}, origin))
