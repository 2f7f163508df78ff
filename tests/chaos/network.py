"""A bad line between box, broker and console: bounded recovery, nothing lost, no busy loop.

The bound follows from keep-alive, back-off and retransmission, which are set to be small. Who is at
a line's end knows at last that a session is over (`Fault.found`), waits out the longest back-off
and connects. What the console was not heard to acknowledge is sent again after a pause that is at
most as long as its silence was, and `PATIENCE_S` more.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal

from tests.chaos.network_agent import (
    ANSWER_S,
    CAP_S,
    DIAL_S,
    KEEPALIVE_S,
    PATIENCE_S,
    PING_MARGIN_S,
    PUBACK_S,
    TICK_S,
    Broken,
)
from tests.chaos.network_proxy import PASS, Rule
from tests.chaos.network_rig import Rig, quick_console
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_demo.waiting import DemoError

DEAD_S: Final = KEEPALIVE_S + TICK_S + KEEPALIVE_S / 2 - PING_MARGIN_S + TICK_S
"""After so long a silence either side gives a line up."""
CONNECT_S: Final = 0.5
"""To connect where nothing is in the way."""
COMMIT_S: Final = 1.0
"""The longest commit window: what the load emitted last is sent after it."""
SLACK_S: Final = 3.0
"""For a machine that has other things to do."""
CORE: Final = 0.15
"""The share of a core that the agent may take while the line is bad, its load included."""
AT_ONCE: Final = 6
TELL_S: Final = 10.0

Where = Literal["box", "console", "acks"]

NEAR: Final = (
    "swallow",
    "connack refused",
    "drip",
    "puback dropped",
    "stall",
    "refuse",
    "delay",
    "no names",
    "cut",
    "puback held",
    "reset",
)
FAR: Final = ("swallow", "drip", "reset", "cut", "delay", "refuse")
ACKS: Final = ("drop", "hold", "stale")


@dataclass(frozen=True, slots=True)
class Fault:
    """start and end: seconds after the first one could begin; amount: see `Rule`."""

    where: Where
    kind: str
    start: float
    end: float
    amount: float = 0.0

    @property
    def found(self) -> float:
        """When whoever is at its line's end knows at the latest that a session is over.

        Who waits for a CONNACK or a SUBACK waits its time out, whatever becomes of the line.
        """
        opening = self.end + max(DIAL_S, ANSWER_S)
        after = {
            "swallow": max(self.start + DEAD_S, opening),
            "stall": self.end + max(DEAD_S, DIAL_S, ANSWER_S),
            "puback dropped": self.end + PUBACK_S,
        }
        return after.get(self.kind, opening)


@dataclass(frozen=True, slots=True)
class Script:
    faults: tuple[Fault, ...]

    @property
    def end(self) -> float:
        return max(fault.end for fault in self.faults)

    @property
    def bound(self) -> float:
        """Seconds after the last fault has ended, until all is acknowledged."""
        lines = [fault.found for fault in self.faults if fault.where != "acks"]
        up = max([*(line + CAP_S + CONNECT_S for line in lines), self.end])
        unheard = [fault.start for fault in self.faults if fault.where != "box"]
        silence = up - min(unheard) if unheard else 0.0
        return up + silence + PATIENCE_S - self.end + COMMIT_S + SLACK_S

    def __str__(self) -> str:
        return ", ".join(
            f"{fault.where}: {fault.kind} {fault.start:.1f}-{fault.end:.1f} s"
            for fault in sorted(self.faults, key=lambda fault: fault.start)
        )


def draw(case: int, chance: random.Random) -> Script:
    """The first faults of each place go through all there are, case by case."""
    first = (NEAR[2 * case % len(NEAR)], NEAR[(2 * case + 1) % len(NEAR)])
    more = chance.choices(NEAR, k=chance.choice((0, 0, 1, 2)))
    faults = _in_turn("box", [*first, *more], chance)
    if case % 2:
        faults += _in_turn("console", [FAR[case // 2 % len(FAR)]], chance)
    if case % 3:
        faults += _in_turn("acks", [ACKS[case // 3 % len(ACKS)]], chance)
    return Script(tuple(faults))


def _in_turn(where: Where, kinds: Sequence[str], chance: random.Random) -> list[Fault]:
    at, faults = 0.0, []
    for kind in kinds:
        at += chance.uniform(0.1, 1.0)
        end = at + chance.uniform(0.5, 2.5)
        faults.append(Fault(where, kind, at, end, _amount(kind, chance)))
        at = end
    return faults


def _amount(kind: str, chance: random.Random) -> float:
    if kind == "drip":
        return chance.choice((100.0, 1000.0, 5000.0))
    if kind == "delay":
        return chance.uniform(0.02, 1.0)
    return chance.choice((0, 200, 1500, 5000, 50_000)) if kind in {"stall", "cut"} else 0


class _Breaker:
    """Lets the faults of a script happen."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    async def run(self, script: Script) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in script.faults:
                group.create_task(self._happen(fault), name=f"fault:{fault.where}:{fault.kind}")

    async def _happen(self, fault: Fault) -> None:
        await asyncio.sleep(fault.start)
        await self._turn(fault, on=True)
        await asyncio.sleep(fault.end - fault.start)
        await self._turn(fault, on=False)

    async def _turn(self, fault: Fault, *, on: bool) -> None:
        rig = self._rig
        if fault.where == "acks":
            await asyncio.to_thread(rig.console.acks.follow, fault.kind if on else "pass")
        elif fault.kind == "no names":
            rig.resolve(names=not on)
        elif fault.kind == "connack refused":
            rig.gate.follow("refuse" if on else "pass")
            if on:
                rig.line.reset()
        elif fault.kind.startswith("puback"):
            rig.gate.follow(("hold" if fault.kind.endswith("held") else "drop") if on else "pass")
        else:
            line = rig.line if fault.where == "box" else rig.far_line
            await line.follow(Rule(fault.kind, fault.amount) if on else PASS)


@dataclass(slots=True)
class Seen:
    """What one case came to. cpu: the share of a core while the line was bad."""

    took: float | None
    bound: float
    cpu: float
    attempts: int
    seconds: float
    promised: list[int] = field(default_factory=list)
    missing: int = 0
    twice: int = 0
    repeats: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def most_attempts(self) -> float:
        """Twice and a half what full jitter comes to on average."""
        return 2.5 * self.seconds / (CAP_S / 2) + 10


async def play(folder: Path, seed: str, script: Script, broken: Broken = "") -> Seen:
    """One case, from an agent that is connected to one that has stopped."""
    rig = Rig(folder, seed, broken)
    code: int | None = None
    try:
        await rig.start()
        began, cpu = time.monotonic(), rig.cpu_seconds()
        await _Breaker(rig).run(script)
        used = rig.cpu_seconds() - cpu
        seconds = time.monotonic() - began
        rig.end_load()
        took = await rig.settled(script.bound)
        attempts = rig.attempts(began)
        seen = Seen(took, script.bound, used / seconds, attempts, time.monotonic() - began)
        if took is not None:
            await asyncio.to_thread(_look, rig, seen)
        seen.promised = rig.promised()
    finally:
        code = await rig.stop()
    seen.wrong += rig.complaints()
    if code != 0:
        seen.wrong.append(f"the agent ended with {code}")
    return seen


def _look(rig: Rig, seen: Seen) -> None:
    """Everything once, and nothing that only another fault could bring about."""
    shown = rig.console.shown()
    seen.missing = sum(not shown[number] for number in rig.promised())
    seen.twice = sum(count > 1 for count in shown.values())
    lanes = rig.console.lanes()
    seen.repeats = sum(lane.duplicates for lane in lanes)
    seen.wrong += rig.console.oddities()
    for lane in lanes:
        if lane.epoch != 1 or lane.losses or lane.gaps or lane.conflicts or lane.undecodable:
            seen.wrong.append(f"{lane}")


def judge(seen: Seen) -> list[str]:
    """What was promised of a line and did not hold."""
    found = list(seen.wrong)
    if seen.took is None:
        found.append(f"not everything was acknowledged {seen.bound:.1f} s after the last fault")
    if seen.missing:
        found.append(f"{seen.missing} of {len(seen.promised)} promised events are missing")
    if seen.twice:
        found.append(f"{seen.twice} events are visible twice")
    if seen.cpu > CORE:
        found.append(f"the agent took {seen.cpu:.0%} of a core while the line was bad")
    if seen.attempts > seen.most_attempts:
        found.append(f"{seen.attempts} attempts to connect in {seen.seconds:.1f} s")
    return found


def run(plan: Plan) -> Outcome:
    with quick_console():
        return asyncio.run(_run(plan))


async def _run(plan: Plan) -> Outcome:
    outcome = Outcome()
    room = asyncio.Semaphore(AT_ONCE)
    told = time.monotonic()

    async def one(case: int) -> None:
        nonlocal told
        async with room:
            await _case(plan, case, outcome)
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            plan.tell(f"{outcome.count} cases, {outcome.acknowledged:,} events")

    async with asyncio.TaskGroup() as group:
        for case in plan.cases:
            group.create_task(one(case), name=f"case:{case}")
    return outcome


async def _case(plan: Plan, case: int, outcome: Outcome) -> None:
    script = draw(case, plan.chance(case))
    folder = plan.folder / f"case-{case}"
    try:
        seen = await play(folder, f"{plan.seed}:{case}", script)
    except DemoError as error:
        outcome.failures.append(f"case {case} ({script}): {error}")
        return
    wrong = judge(seen)
    for text in wrong:
        outcome.failures.append(f"case {case} ({script}): {text}")
        plan.tell(outcome.failures[-1])
    outcome.count += 1
    outcome.acknowledged += len(seen.promised)
    outcome.lost += seen.missing
    outcome.visible_duplicates += seen.twice
    outcome.wire_duplicates += seen.repeats
    _note(outcome, "longest recovery, s", seen.took or seen.bound)
    _note(outcome, "longest bound, s", seen.bound)
    _note(outcome, "most of its bound that a recovery took", (seen.took or seen.bound) / seen.bound)
    _note(outcome, "most of a core", seen.cpu)
    _note(outcome, "most attempts to connect a second", seen.attempts / seen.seconds)
    if not wrong:
        shutil.rmtree(folder)


def _note(outcome: Outcome, name: str, value: float) -> None:
    outcome.figures[name] = round(max(float(outcome.figures.get(name, 0.0)), value), 2)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is broken, for people; where it shows; and the words of `judge` that say so."""

    text: str
    script: Script
    sign: str


BROKEN: Final[dict[Broken, Flaw]] = {
    "deaf": Flaw(
        "a link that does not notice a dead line",
        Script((Fault("box", "swallow", 0.3, 1.3),)),
        "not everything was acknowledged",
    ),
    "forgetful": Flaw(
        "a sender that never sends again",
        Script((Fault("acks", "drop", 0.1, 1.5),)),
        "not everything was acknowledged",
    ),
    "hasty": Flaw(
        "a link without a back-off",
        Script((Fault("box", "refuse", 0.1, 1.5),)),
        "attempts to connect",
    ),
}


@cache
def _all_broken(seed: int, folder: Path) -> dict[Broken, list[str]]:
    """What is found wrong with each; at the same time, for each waits for its bound."""

    async def work() -> dict[Broken, list[str]]:
        async with asyncio.TaskGroup() as group:
            tasks = {
                broken: group.create_task(play(folder / broken, f"{seed}", flaw.script, broken))
                for broken, flaw in BROKEN.items()
            }
        return {broken: judge(task.result()) for broken, task in tasks.items()}

    with quick_console():
        return asyncio.run(work())


def _control(broken: Broken) -> Callable[[Plan], Outcome]:
    def run(plan: Plan) -> Outcome:
        found = _all_broken(plan.seed, plan.folder)[broken]
        return Outcome(count=1, failures=[text for text in found if BROKEN[broken].sign in text])

    return run


SUITE: Final = Suite(
    "network",
    "half-open, RST, slow drip, stalled TLS, delay, cut, refusals, disordered acknowledgements",
    run,
    quick=6,
    full=200,
    controls=tuple(Control(flaw.text, _control(broken), 1) for broken, flaw in BROKEN.items()),
    needs=("mosquitto",),
)
