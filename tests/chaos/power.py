"""Power cuts: all writes of a life are recorded and replayed up to anywhere, and the rest is torn.

What a disk may lose or tear at a cut is in `power_disk`. Each state that a cut leaves is opened as
the agent opens it: what was promised by then must be there. A stretch of cases shares one life.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final
from unittest.mock import patch

from tests.chaos.disk_known import Known, judge
from tests.chaos.disk_life import Course, prepare
from tests.chaos.power_disk import NAMES, Disk, write_out
from tests.chaos.power_trace import Made, TraceError, read, record
from tests.chaos.suite import Control, Outcome, Plan, Suite

STRETCH: Final = 300
"""Cases that share one recorded life."""
STEPS: Final = 150
_TELL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A life to record, and the cases to cut it in. For a process of its own."""

    seed: int
    cases: Sequence[int]
    kept: Path
    course: Course


def run(plan: Plan, **changes: object) -> Outcome:
    """Each life in its turn, on two processors."""
    outcome = Outcome()
    told = time.monotonic()
    stretches = [
        _Stretch(plan.seed, list(cases), plan.folder, _course(plan.seed, number, changes))
        for number, cases in groupby(plan.cases, lambda case: case // STRETCH)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(2, len(stretches)), mp_context=context) as pool:
        for done in as_completed([pool.submit(_replay, one) for one in stretches]):
            _add(outcome, done.result())
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                plan.tell(f"{outcome.count:,} of {len(plan.cases):,} states, {outcome.lost} lost")
    return outcome


def _course(seed: int, number: int, changes: dict[str, object]) -> Course:
    course = Course(folder="box", marks="marks", seed=f"{seed}:life-{number}", steps=STEPS)
    return replace(course, **changes)  # type: ignore[arg-type]


def _add(whole: Outcome, part: Outcome) -> None:
    whole.count += part.count
    whole.acknowledged += part.acknowledged
    whole.lost += part.lost
    whole.visible_duplicates += part.visible_duplicates
    whole.failures += part.failures
    for name, value in part.figures.items():
        whole.figures[name] = int(whole.figures.get(name, 0)) + int(value)


def _replay(stretch: _Stretch) -> Outcome:
    """Record the life, then cut it in each case."""
    with tempfile.TemporaryDirectory(dir=memory(), prefix="nexus-power-") as name:
        place = Path(name)
        course = replace(stretch.course, folder=str(place / "box"), marks=str(place / "marks"))
        prepare(Course(folder="", marks="", seed="", steps=0))
        try:
            record(["tests.chaos.disk_life", course.text()], place / "trace")
            made = read(place / "trace", Path(course.folder), Path(course.marks))
        except TraceError as error:
            return Outcome(failures=[f"{stretch.cases[0]}: no life to cut: {error}"])
        (place / "trace").unlink()
        shutil.rmtree(course.folder)
        # Every damaged file is a critical word in the log; only a control has any.
        with asyncio.Runner() as runner, patch("nexus_agent.store.database.log"):
            return _cut_all(stretch, made, Known(course.seed), place / "state", runner)


def _cut_all(
    stretch: _Stretch, made: list[Made], known: Known, folder: Path, runner: asyncio.Runner
) -> Outcome:
    outcome = Outcome()
    plan = Plan(stretch.seed, stretch.cases, stretch.kept, print)
    disk = Disk()
    done = 0
    for place, case in _cuts(plan, made):
        while done < place:
            disk.do(made[done])
            if made[done].kind == "mark":
                known.note(made[done].data)
            done += 1
        dice = plan.chance(case)
        dice.random()
        state = disk.cut(dice)
        write_out(state, folder)
        verdict = runner.run(judge(folder, known))
        outcome.count += 1
        outcome.acknowledged += len(known.promised)
        outcome.lost += verdict.missing
        outcome.visible_duplicates += verdict.twice
        outcome.failures += [
            f"{case}: cut at {place} of {len(made)}: {text}" for text in verdict.failures
        ]
        if verdict.failures and len(outcome.failures) < 50:
            write_out(state, stretch.kept / f"case-{case}")
    outcome.figures = {"lives": 1, "operations": len(made)}
    return outcome


def _cuts(plan: Plan, made: list[Made]) -> list[tuple[int, int]]:
    """Where each case cuts, in the order of the places: a third of them near a change of names."""
    names = [at for at, one in enumerate(made) if one.kind in NAMES]
    found: list[tuple[int, int]] = []
    for case in plan.cases:
        chosen = plan.chance(case).random()
        if case % 3:
            place = int(chosen * (len(made) + 1))
        else:
            place = names[int(chosen * len(names))] + case // 3 % 8
        found.append((min(place, len(made)), case))
    return sorted(found)


def memory() -> str | None:
    """Nothing here is to outlive the power."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


SUITE: Final = Suite(
    name="power",
    what="power cuts: recorded writes, of which chance drops and tears what was not synced",
    run=run,
    quick=600,
    full=50_000,
    controls=(
        Control("synchronous=NORMAL", partial(run, synchronous="NORMAL", steps=80), 60),
        Control("synchronous=OFF", partial(run, synchronous="OFF", steps=80), 60),
        Control("a guard file without fsync", partial(run, guard_synced=False, steps=80), 60),
    ),
    needs=("strace",),
)
