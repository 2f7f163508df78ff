"""Checks of a plugin at work: that it starts, ends wherever it is cancelled, and leaves nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from nexus_agent.plugin import PluginError, Settings
from nexus_agent.protocol.catalogue import names
from nexus_agent.workbench.findings import Finding, failed, passed
from nexus_agent.workbench.subject import Subject
from nexus_agent.workbench.trial import Outcome, attempt
from nexus_agent.workbench.watch import BLOCKED_S, Watch

Hopeless = Callable[[float, str], None]

AWAITS: Final = 50
"""So many awaits are looked at, as far as the plugin reaches them in five seconds."""
BUDGET_S: Final = 40.0
"""Seconds after which no further await is tried."""


async def checks(
    subject: Subject, settings: Settings, hopeless: Hopeless, within_s: float
) -> list[Finding]:
    """Every finding about the plugin at work with these settings.

    within_s: seconds that each of its runs may take, and then its end. hopeless: see `Watch`.
    """
    watch = Watch(subject, hopeless, 2 * within_s)
    watch.start()
    try:
        with _unclosed() as unclosed:
            outcomes = await _attempts(subject, settings, within_s)
        blocks = dict(watch.found)
        if blocks and outcomes[-1].ended_s is not None:
            # Once more: a machine that is busy elsewhere seldom accuses the same line twice.
            watch.found.clear()
            await attempt(subject, settings, AWAITS, within_s)
            blocks = {place: blocks[place] for place in watch.found if place in blocks}
    finally:
        watch.stop()
    return [
        _start(subject, outcomes[0]),
        _cancel(subject, outcomes, within_s),
        _leftovers(outcomes, unclosed),
        _blocking(outcomes, blocks),
        _events(subject, outcomes),
    ]


async def _attempts(subject: Subject, settings: Settings, within_s: float) -> list[Outcome]:
    """The first runs as far as it may, the others end at each await that the first came to."""
    begun = time.monotonic()
    outcomes = [await attempt(subject, settings, AWAITS, within_s)]
    for number in range(1, min(outcomes[0].awaits, AWAITS - 1) + 1):
        if outcomes[-1].ended_s is None:
            break  # it would disturb the next
        if (number > 1 and outcomes[-1].left) or time.monotonic() - begun > BUDGET_S:
            break  # enough is known, or enough time spent
        outcomes.append(await attempt(subject, settings, number, within_s))
    return outcomes


@contextmanager
def _unclosed() -> Iterator[list[str]]:
    """What Python closes in the plugin's stead within the block, in words."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield found
        found.extend(
            str(item.message) for item in caught if issubclass(item.category, ResourceWarning)
        )


def _start(subject: Subject, first: Outcome) -> Finding:
    error = first.error
    if first.cancelled is not None:
        return passed("start", f"runs; {first.awaits} awaits were reached")
    if error is None:
        return passed("start", "returned by itself: the agent takes that as done")
    text = f"raised {type(error).__name__}: {error}"
    if isinstance(error, PluginError):
        return passed("start", f"{text}; the agent knows what to do then")
    return failed(
        "start",
        f"{text}, at {subject.place_of_error(error)}",
        "raise RetryError or FatalError with words for people",
    )


def _cancel(subject: Subject, outcomes: list[Outcome], within_s: float) -> Finding:
    stopped = [outcome for outcome in outcomes if outcome.cancelled is not None]
    for outcome in stopped:
        if outcome.ended_s is None:
            return failed(
                "cancel",
                f"does not end within {within_s:g} s when it is cancelled at {outcome.cancelled}",
                "let CancelledError through: give back what you hold, and raise it again",
            )
        if outcome.error is not None:
            error = outcome.error
            return failed(
                "cancel",
                f"cancelled at {outcome.cancelled}, it raised {type(error).__name__}: {error}, "
                f"at {subject.place_of_error(error)}",
                "let CancelledError through; what is done on the way out must not fail",
            )
    if not stopped:
        return passed("cancel", "it never waits")
    slowest = max(outcome.ended_s or 0.0 for outcome in stopped)
    return passed("cancel", f"ends at each of {len(stopped)} awaits, in {slowest:.2f} s or less")


def _leftovers(outcomes: list[Outcome], unclosed: list[str]) -> Finding:
    # What the first run opened may be kept for good, such as a cache of a library.
    advice = "close it in `finally` or with `with`, and own tasks by a TaskGroup"
    for outcome in outcomes[1:]:
        if outcome.left is not None:
            where = outcome.cancelled or "its end"
            return failed("leftovers", f"{outcome.left}, after {where}", advice)
    if unclosed:
        return failed("leftovers", f"{unclosed[0]}: Python closed it at last", advice)
    return passed("leftovers", "no task, thread or open file is left behind")


def _blocking(outcomes: list[Outcome], blocks: Mapping[str, float]) -> Finding:
    # What only the first run does is mostly an import.
    found = [(seconds, place) for place, seconds in blocks.items()] or [
        (seconds, f"the step to {place}")
        for seconds, place in (outcome.busy for outcome in outcomes[1:] or outcomes)
        if seconds > BLOCKED_S
    ]
    if not found:
        return passed("blocking", f"no step takes longer than {BLOCKED_S:g} s")
    return blocked(*max(found))


def blocked(seconds: float, place: str) -> Finding:
    """The finding for a step of *seconds* at *place*."""
    return failed(
        "blocking",
        f"the event loop stood still for {seconds:.1f} s, at {place}",
        "call it with `await self.context.run_blocking(function, …)`",
    )


def _events(subject: Subject, outcomes: list[Outcome]) -> Finding:
    refused = [text for outcome in outcomes for text in outcome.context.refused]
    if refused:
        return failed("events", refused[0], "emit what JSON can carry, under dotted names")
    found = sorted(set().union(*(outcome.context.types for outcome in outcomes)))
    undeclared = [name for name in found if name not in names(subject.plugin.emits)]
    if undeclared:
        return failed("events", f"emits {undeclared[0]!r} undeclared", "name it in `emits`")
    return passed("events", f"emitted {', '.join(found)}" if found else "none were emitted here")
