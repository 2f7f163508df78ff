"""A seeded simulation of the whole path in virtual time: one case, one seed, one run.

Real are the outbox, the sender, the link, the housekeeper, the birth, and the console's intake and
writer, on real SQLite files; virtual are time, the network, and the disk's moods.
"""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final
from unittest.mock import patch

from tests.chaos.delivery_cases import Case, run_cases
from tests.chaos.simulation_world import World
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_agent.store import housekeeping
from nexus_agent.store.buffer import Batch
from nexus_agent.store.sealer import Sealer
from nexus_console.lanes import Lane

TWICE: Final = 25
"""Every so manieth case is run twice, to see that it is the same run."""


def run(plan: Plan) -> Outcome:
    return run_cases(plan, simulate)


def simulate(case: Case) -> Outcome:
    """Live through *case*."""
    outcome = Outcome()
    dice = case.chance.getstate()
    digest = _live(case, outcome)
    if outcome.ok and case.number % TWICE == 0:
        case.chance.setstate(dice)
        again = _live(case, Outcome())
        if again != digest:
            outcome.failures.append(f"case {case.number}: two runs, {digest} and {again}")
    return outcome


def _live(case: Case, outcome: Outcome) -> str:
    random.seed(case.chance.getrandbits(64))
    world = World(case.chance, case.scratch, case.box, case.console)
    try:
        with _pace(world.seconds):
            world.run()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a world is looked for
        story = "\n".join(world.story)
        outcome.failures.append(f"case {case.number}: {_told(error)}\n{story}")
    else:
        outcome.figures |= {
            "virtual hours": round(world.loop.now / 3600, 1),
            "most seconds until all had come": round(world.healed, 1),
            "most turns a second of an idle world": round(world.idle, 1),
        }
    outcome.count = 1
    for box in world.boxes:
        outcome.acknowledged += len(box.truth.numbers)
    outcome.wire_duplicates = world.duplicates
    return world.digest


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


@contextmanager
def _pace(seconds: float) -> Iterator[None]:
    """Housekeeping that looks once a second would take most of the work of a run of days."""
    with ExitStack() as stack:
        for name, least, parts in ("TICK_S", 1.0, 400), ("TELL_S", 5.0, 200), ("TIDY_S", 60.0, 25):
            stack.enter_context(patch.object(housekeeping, name, max(least, seconds / parts)))
        yield


# -- controls ------------------------------------------------------------------------------------

_found = partial(run_cases, until_failed=True)


async def _answer_first(self: Sealer, batches: Sequence[Batch]) -> None:
    for batch in batches:
        batch.done.set_result(None)
        batch.done = asyncio.get_running_loop().create_future()
    await _SEAL(self, batches)


_SEAL = Sealer._seal


def _hasty(case: Case) -> Outcome:
    with patch.object(Sealer, "_seal", _answer_first):
        return simulate(case)


def _leaping(case: Case) -> Outcome:
    highest = property(lambda lane: min(lane._coverage.highest, lane._sealed))
    with patch.object(Lane, "acknowledged", highest):
        return simulate(case)


SUITE = Suite(
    name="simulation",
    what="boxes, broker and console live through hours of misfortune in virtual time",
    run=run,
    quick=12,
    full=5000,
    controls=(
        Control("a box answers before it commits", partial(_found, work=_hasty), 100),
        Control("a console acknowledges beyond a gap", partial(_found, work=_leaping), 100),
    ),
)
