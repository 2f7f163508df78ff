"""The delivery contract as a state machine: Hypothesis looks for the steps that break it.

A case is a run of `EXAMPLES` lives, of `Delivery` where its number is even, of `Disasters` where it
is odd.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.chaos.delivery_cases import Case, run_cases
from tests.chaos.delivery_parts import Box, Console
from tests.chaos.machine_delivery import Delivery
from tests.chaos.machine_disasters import Disasters
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_agent.protocol import Ack, Stream
from nexus_agent.store import buffer, guard
from nexus_console.intake import Inbound, Intake, Mark
from nexus_console.intake import Outcome as Answer

EXAMPLES: Final = 20
STEPS: Final = 30
FULL: Final = 200
"""2,000 lives of each kind."""


class HastyConsole(Console):
    """Acknowledges before it commits: it does that in its next turn."""

    late: Sequence[Inbound] = ()

    def take(self, batch: Sequence[Inbound]) -> Answer:
        for mark in self.try_out(batch):
            self.writer._acknowledge(mark)
        batch, self.late = self.late, batch
        with patch.object(self.writer, "_acknowledge"):
            return super().take(batch)

    def try_out(self, batch: Sequence[Inbound]) -> list[Mark]:
        marks: list[Mark] = []
        with suppress(InterruptedError), self.database.write() as connection:
            intake = Intake(connection)
            for message in batch:
                intake.take(message)
            marks = intake.finish().marks
            raise InterruptedError
        return marks


class Hasty(Delivery):
    """With such a console."""

    make_console = HastyConsole


class ForgetfulBox(Box):
    """Goes on with its old numbers, whatever the console orders."""

    async def take_ack(self, payload: bytes) -> None:
        obeyed = Ack.decode(payload).model_copy(update={"renew": None})
        await super().take_ack(obeyed.encode())


class Forgetful(Disasters):
    """With such a box, which has no guard file either."""

    make_box = ForgetfulBox


def run(plan: Plan) -> Outcome:
    return run_cases(plan, _either)


def _either(case: Case) -> Outcome:
    return _search(Disasters if case.number % 2 else Delivery, case)


def _search(
    machine: type[Delivery], case: Case, phases: Sequence[Phase] = (Phase.generate, Phase.shrink)
) -> Outcome:
    """`EXAMPLES` lives of *machine*; the shortest that breaks the promise is the failure."""
    outcome = Outcome()
    case.scratch.mkdir()
    known = {"tally": outcome, "case": case}
    chosen = seed(case.chance.getrandbits(64))(type(machine.__name__, (machine,), known))
    try:
        with _at_once():
            run_state_machine_as_test(chosen, settings=_settings(phases))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a life is what is looked for
        told = "\n".join(_told(error))
        outcome.failures.append(f"case {case.number}, {machine.__name__}: {told}")
    return outcome


def _told(error: BaseException) -> Iterator[str]:
    """What broke and the steps to it; each of several breaks that were found."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _told(one)
        return
    where = traceback.extract_tb(error.__traceback__)[-1]
    yield f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
    yield from getattr(error, "__notes__", [])


def _settings(phases: Sequence[Phase]) -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        phases=phases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def _at_once() -> Iterator[None]:
    """Time stands still in these lives: nobody waits for company."""
    with patch.dict(buffer.WINDOW_S, dict.fromkeys(Stream, 0.0)):
        yield


# -- controls ------------------------------------------------------------------------------------


_found = partial(run_cases, until_failed=True)


def _hasty(case: Case) -> Outcome:
    return _search(Hasty, case, phases=[Phase.generate])


def _forgetful(case: Case) -> Outcome:
    with patch.object(guard, "reconcile", lambda _connection, at, *_: at):
        return _search(Forgetful, case, phases=[Phase.generate])


SUITE = Suite(
    name="machine",
    what="Hypothesis looks for steps of box, network and console that break the promise",
    run=run,
    quick=2,
    full=FULL,
    controls=(
        Control("a console acknowledges before it commits", partial(_found, work=_hasty), 4),
        Control(
            "a box numbers anew in the same epoch after a restore",
            partial(_found, work=_forgetful),
            8,
        ),
    ),
)
