"""SIGKILL of agents, broker and console at random moments under load: nothing promised is lost.

A case is one kill. Many cases share the processes that they kill, so the seed gives the victims
again, their order and the pauses, but not the microsecond.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.promises import Number, Verdict
from tests.chaos.shop import Load, Shop, Victim, amiss, duplicates, leaves, opened
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_demo.waiting import DemoError, NotYet, until

BOXES: Final = 3
RATE: Final = 200.0
"""Events a second of each box."""
DECK: Final = ("agent",) * 20 + ("broker",) * 5 + ("console",) * 2
"""Whom so many cases in a row kill, in an order of chance: 1,000, 250 and 100 of 1,350."""
FULL: Final = 50 * len(DECK)
ROUND: Final = 5 * len(DECK)
"""Cases that share their processes; after them everything must drain."""
WIRE_DUPLICATES: Final = 1000
"""What a full run must absorb more of, or it has not tried hard."""
WORKING_S: Final = 5.0
TELL_S: Final = 10.0
BELIEVED: Final = 50
"""Events that the control loses with the broker: far more than the few of the agent's own."""


@dataclass(slots=True)
class Tally:
    """What was seen on the way."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(sorted(set(DECK)), 0))
    unheard: int = 0
    """Consoles that were killed after a commit that a connected box had not heard of."""
    slowest_drain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pauses:
    """What chance decides of a case, in seconds. before: the kill; after: it, down."""

    before: float
    after: float
    box: int
    working: bool
    """Whether that box shall be at its work first, if it gets there in time."""
    saves: bool
    """Whether the broker writes its state down before, as mosquitto does every half hour: when it
    is killed next, it comes back with messages and sessions of then."""


def victim(plan: Plan, case: int) -> str:
    """Whom *case* kills."""
    deck = list(DECK)
    plan.chance(-1 - case // len(deck)).shuffle(deck)
    return deck[case % len(deck)]


def pauses(dice: random.Random) -> Pauses:
    """Mostly within a second, sometimes together with the case before, sometimes at rest again."""
    kind = dice.random()
    if kind < 0.15:
        before = 0.0
    elif kind < 0.97:
        before = dice.uniform(0.05, 1.0)
    else:
        before = dice.uniform(3, 8)
    after = dice.choice((0.0, 0.0, 0.0, dice.uniform(0, 2)))
    working = dice.random() < 0.25
    return Pauses(before, after, dice.randrange(BOXES), working, dice.random() < 0.1)


def run(plan: Plan) -> Outcome:
    outcome, tally = Outcome(), Tally()
    began = time.monotonic()
    for number, cases in enumerate(_rounds(plan.cases)):
        folder = plan.folder / str(number)
        asyncio.run(_round(plan, cases, folder, outcome, tally))
        plan.tell(
            f"{outcome.count} kills: {outcome.acknowledged} promised, {outcome.lost} lost, "
            f"{outcome.visible_duplicates} twice, {outcome.wire_duplicates} duplicates on the wire"
        )
        if outcome.failures:
            break
    if outcome.count >= FULL and not outcome.failures:
        _check_that_it_was_hard(outcome, tally)
    outcome.figures = {
        **{f"kills of {name}": count for name, count in tally.kills.items()},
        "consoles killed between commit and acknowledgement": tally.unheard,
        "slowest drain, s": round(tally.slowest_drain_s, 1),
        "promised events a second": round(outcome.acknowledged / (time.monotonic() - began)),
    }
    return outcome


def _rounds(cases: Sequence[int]) -> Iterator[Sequence[int]]:
    return (cases[start : start + ROUND] for start in range(0, len(cases), ROUND))


def _check_that_it_was_hard(outcome: Outcome, tally: Tally) -> None:
    if outcome.wire_duplicates <= WIRE_DUPLICATES:
        outcome.failures.append(
            f"all cases: {outcome.wire_duplicates} duplicates on the wire, of which a full run "
            f"must absorb more than {WIRE_DUPLICATES}"
        )
    if not tally.unheard:
        outcome.failures.append("all cases: no console was killed between commit and answer")


async def _round(
    plan: Plan, cases: Sequence[int], folder: Path, outcome: Outcome, tally: Tally
) -> None:
    """Kill in *cases*, let everything drain, and book what came of it."""
    load = Load(RATE, plan.seed)
    killed = f"cases {cases[0]}-{cases[-1]}"
    async with opened(folder, BOXES, load) as shop:
        try:
            await _kill(plan, cases, shop, outcome, tally)
            await shop.drain()
        except* DemoError as group:
            outcome.failures += [f"{killed}: {error}" for error in leaves(group)]
        if outcome.failures:
            return
        verdict = await shop.judge()
        delivery = await shop.delivery()
    tally.slowest_drain_s = max(tally.slowest_drain_s, shop.drain_s)
    outcome.wire_duplicates += duplicates(delivery)
    outcome.failures += [f"{killed}: {text}" for text in amiss(delivery)]
    _book(cases, shop, verdict, outcome)


async def _kill(
    plan: Plan, cases: Sequence[int], shop: Shop, outcome: Outcome, tally: Tally
) -> None:
    told = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for case in cases:
            chosen, name = pauses(plan.chance(case)), victim(plan, case)
            if chosen.saves and shop.mosquitto.is_up:
                os.kill(shop.broker.process.pid, signal.SIGUSR1)
            if chosen.working:
                with suppress(DemoError):
                    await until("it works", shop.boxes[chosen.box].works, within=WORKING_S)
            await asyncio.sleep(chosen.before)
            fallen = _pick(shop, name, chosen.box)
            await fallen.fall(case)
            if name == "console":
                tally.unheard += await _unheard(shop)
            group.create_task(fallen.rise(chosen.after), name=f"rise:{case}")
            tally.kills[name] += 1
            outcome.count += 1
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                plan.tell(f"{outcome.count} kills")


def _pick(shop: Shop, name: str, box: int) -> Victim:
    if name == "agent":
        return shop.boxes[box].agent
    return shop.console if name == "console" else shop.mosquitto


async def _unheard(shop: Shop) -> bool:
    """Whether the console that was killed had committed what a connected box does not know of."""
    marks = shop.marks()
    for box in shop.boxes:
        try:
            status = await box.ask("/v1/status")
            streams = (await box.ask("/v1/outbox"))["streams"]
        except NotYet:
            continue  # it is starting
        heard = {stream["stream"]: stream["acknowledged"] for stream in streams}
        behind = any(marks.get((box.name, name), 0) > mark for name, mark in heard.items())
        if behind and status["broker"]["state"] == "connected":
            return True
    return False


def _book(cases: Sequence[int], shop: Shop, verdict: Verdict, outcome: Outcome) -> None:
    outcome.acknowledged += verdict.promised
    outcome.lost += len(verdict.lost)
    outcome.visible_duplicates += len(verdict.twice)
    for what, numbers in (
        ("lost", verdict.lost),
        ("visible twice", verdict.twice),
        ("out of order", verdict.astray),
    ):
        for lane, group in itertools.groupby(numbers, lambda number: number.lane):
            first, *more = group
            outcome.failures.append(
                f"{_ended(shop, first, cases)}: {what}: {first} and {len(more)} more of {lane}"
            )


def _ended(shop: Shop, number: Number, cases: Sequence[int]) -> str:
    """The case that ended the life in which *number* was given out; all of *cases* if none did."""
    box = next(box for box in shop.boxes if box.name == number.lane.box)
    after = [case for at, case in box.agent.deaths if at > number.lane.life]
    return f"case {after[0]}" if after else f"cases {cases[0]}-{cases[-1]}"


# -- control -------------------------------------------------------------------------------------


def _believe_the_broker(plan: Plan) -> Outcome:
    """A box that releases what the broker has, which dies with what it keeps for a dead console.

    Its history would often heal that: so its disk goes, too, from which nothing promised is lost
    where all of it is released.
    """
    outcome = Outcome()
    asyncio.run(_lose(plan, outcome))
    return outcome


async def _lose(plan: Plan, outcome: Outcome) -> None:
    load = Load(RATE, plan.seed)
    async with opened(plan.folder, 1, load, ack="broker") as shop:
        for case in plan.cases:
            await asyncio.sleep(plan.chance(case).uniform(0.2, 0.6))
            await shop.console.fall(case)
            await until("the broker alone has something", lambda: _believed(shop), within=WORKING_S)
            await shop.mosquitto.fall(case)
            await shop.boxes[0].agent.fall(case)
            shutil.rmtree(shop.boxes[0].state)
            await shop.mosquitto.rise()
            await shop.console.rise()
            await shop.boxes[0].agent.rise()
            outcome.count += 1
        await shop.drain()
        _book(plan.cases, shop, await shop.judge(patience=2), outcome)


async def _believed(shop: Shop) -> None:
    """NotYet unless the box has released BELIEVED events that the console, which is down, lacks."""
    box, marks = shop.boxes[0], shop.marks()
    streams = (await box.ask("/v1/outbox"))["streams"]
    released = {stream["stream"]: stream["acknowledged"] for stream in streams}
    lacking = sum(last - marks.get((box.name, name), 0) for name, last in released.items())
    if lacking < BELIEVED:
        raise NotYet(f"{box.name} has released {lacking} events that the console lacks")


SUITE = Suite(
    name="kill",
    what="SIGKILL of agents, broker and console at random moments under load",
    run=run,
    quick=len(DECK),
    full=FULL,
    controls=(Control('[broker] ack = "broker"', _believe_the_broker, cases=1),),
    needs=("mosquitto",),
)
