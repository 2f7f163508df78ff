"""Running many small cases of delivery in two processes, on templates that are made once."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import structlog
from structlog.typing import EventDict
from tests.chaos.delivery_parts import memory, templates
from tests.chaos.suite import Outcome, Plan

PROCESSES: Final = 2
TELL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """scratch: a folder of its own. box and console: what a new box's folder and a new console's
    database are copied from.
    """

    number: int
    chance: random.Random
    scratch: Path
    box: Path
    console: Path


Work: TypeAlias = Callable[[Case], Outcome]
"""A function of a module: it is run in another process."""


def run_cases(plan: Plan, work: Work, *, until_failed: bool = False) -> Outcome:
    """*work* on each case of *plan*; all outcomes in one. until_failed: one failure is enough."""
    whole = Outcome()
    told = time.monotonic()
    with _cases(plan) as cases:
        for outcome in _outcomes(cases, work):
            add(whole, outcome)
            for failure in () if until_failed else outcome.failures:
                plan.tell(failure)
            if until_failed and not whole.ok:
                break
            if time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                plan.tell(f"{whole.count:,} so far, {len(whole.failures)} failed")
    whole.failures.sort()
    return whole


def add(whole: Outcome, part: Outcome) -> None:
    """Count *part* into *whole*."""
    whole.count += part.count
    whole.acknowledged += part.acknowledged
    whole.lost += part.lost
    whole.visible_duplicates += part.visible_duplicates
    whole.wire_duplicates += part.wire_duplicates
    whole.failures += part.failures
    for name, value in part.figures.items():
        if isinstance(value, str):
            whole.figures[name] = value
        elif name.startswith("most "):
            whole.figures[name] = max(value, float(whole.figures.get(name, 0)))
        else:
            whole.figures[name] = value + float(whole.figures.get(name, 0))


def _outcomes(cases: Sequence[Case], work: Work) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, initializer=_be_silent) as pool:
        waiting: set[Future[Outcome]] = {pool.submit(work, case) for case in cases}
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _be_silent() -> None:
    """What boxes and consoles say of their misfortunes would fill the screen."""
    structlog.configure(processors=[_drop])


def _drop(_logger: object, _method: str, _event: EventDict) -> EventDict:
    raise structlog.DropEvent


@contextmanager
def _cases(plan: Plan) -> Iterator[list[Case]]:
    """In memory where there is such a place, since nothing here is to outlive a power cut."""
    with tempfile.TemporaryDirectory(dir=memory(), prefix="nexus-chaos-") as name:
        folder = Path(name)
        box, console = templates(folder)
        yield [
            Case(number, plan.chance(number), folder / str(number), box, console)
            for number in plan.cases
        ]
