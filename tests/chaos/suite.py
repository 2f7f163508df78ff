"""What a suite of `make chaos` is, and what it answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Plan:
    """What a suite is to do.

    seed and a case's number decide all that chance decides in a case, so that one case can be run
    again alone. folder: of this run alone; it is kept where something failed. tell: progress, a
    line at a time.
    """

    seed: int
    cases: Sequence[int]
    folder: Path
    tell: Callable[[str], None]

    def chance(self, case: int) -> random.Random:
        """The dice of *case*."""
        return random.Random(f"{self.seed}:{case}")


@dataclass(slots=True)
class Outcome:
    """What came of a plan. count: the cases that were run.

    acknowledged: promised events, of which each must have arrived or be shown as lost. failures: a
    line for each broken promise, which begins with its case. figures: what else is worth knowing,
    by name; times in seconds.
    """

    count: int = 0
    acknowledged: int = 0
    lost: int = 0
    visible_duplicates: int = 0
    wire_duplicates: int = 0
    failures: list[str] = field(default_factory=list)
    figures: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.failures and not self.lost and not self.visible_duplicates


Run: TypeAlias = Callable[[Plan], Outcome]


@dataclass(frozen=True, slots=True)
class Control:
    """The same test of something that is broken on purpose: it must fail.

    broken: what was broken, for people. cases: how many are enough to see it fail.
    """

    broken: str
    run: Run
    cases: int


@dataclass(frozen=True, slots=True)
class Suite:
    """One proof. what: one line for people. quick and full: how many cases.

    needs: programs without which it cannot run. root: whether it needs root.
    """

    name: str
    what: str
    run: Run
    quick: int
    full: int
    controls: tuple[Control, ...]
    needs: tuple[str, ...] = ()
    root: bool = False
