"""Whatever the clock says: order is kept, nothing expires wrongly, and no time is made up.

The first cases are stories with a name; those behind them are random walks.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from tests.chaos.delivery_parts import memory, templates
from tests.chaos.suite import Control, Outcome, Plan, Suite
from tests.chaos.times_world import (
    DAY_S,
    SLOWEST_S,
    YEAR,
    KeptBox,
    MachineClock,
    World,
    on_this_machine,
)
from tests.unit.agent.store.boxed import HOUR

from nexus_agent.protocol import Stamp, Stream
from nexus_agent.store.housekeeping import Housekeeper

TTL: Final = {"log": 336.0}
"""As shipped."""
SHORT: Final = {"log": 24.0, "telemetry": 48.0, "event": 200.0}
TELL_S: Final = 10.0
BULK: Final = 50
"""Events of one moment that make a segment which is not merged with its neighbours."""
STEPS: Final = 40
"""Of a random walk."""


# -- stories -------------------------------------------------------------------------------------


def sixty_days_offline(world: World) -> None:
    world.boot()
    for _ in range(60):
        world.emit_everywhere()
        world.emit(Stream.LOG, BULK)
        world.wait(DAY_S, step=DAY_S / 2)
    expired = [event for event in world.lost if world.happened[event].stream is Stream.LOG]
    assert len(expired) == len(world.lost) >= (60 - 14) * BULK, f"{len(world.lost)} expired"
    world.settle()


def sixty_days_in_1970(world: World) -> None:
    """Nothing expires, for nobody knows the time; then it is known, and two weeks go by."""
    world.boot(rtc=False)
    for _ in range(60):
        world.emit_everywhere()
        world.wait(DAY_S, step=DAY_S / 2)
    assert not world.lost
    world.expire_all()
    assert len(world.lost) >= 60
    world.settle()


def synchronised_late(world: World) -> None:
    world.boot(rtc=False)
    world.emit_everywhere(3)
    world.wait(600, step=60)
    world.emit_everywhere(3)
    world.machine.synchronise()
    world.wait(60, step=20)
    world.emit_everywhere(3)
    world.settle()


def ten_years_ahead(world: World) -> None:
    """While it runs, with delivered history and events that wait."""
    _jump(world, 10 * YEAR)


def ten_years_back(world: World) -> None:
    _jump(world, -10 * YEAR)


def _jump(world: World, error: int) -> None:
    world.boot()
    world.emit_everywhere(5)
    world.connect()
    world.exchange()
    world.disconnect()
    world.wait(3 * 3600)
    world.emit_everywhere(5)
    world.machine.set(error)
    world.emit_everywhere(5)
    world.wait(DAY_S)
    assert not world.lost
    world.end()
    world.start()
    world.emit_everywhere(5)
    world.wait(3600)
    world.machine.synchronise()
    world.wait(60, step=20)
    world.emit_everywhere(5)
    world.wait(3600)
    assert not world.lost
    world.settle()


def back_again_and_again(world: World) -> None:
    """The clock is set back by hours while the box sends."""
    world.boot()
    world.connect()
    for hours in (1, 5, 30, 800, 9000):
        world.emit_everywhere(2)
        world.machine.set(world.machine.error - hours * HOUR)
        world.emit_everywhere(2)
        world.exchange()
        world.wait(1800, step=300)
    world.settle()


def booted_ten_years_ahead(world: World) -> None:
    """A battery-backed clock that is wrong must not lift the floor for good."""
    world.boot()
    world.emit(Stream.EVENT)
    world.end(clean=True)
    world.machine.set(10 * YEAR)
    world.boot()
    world.emit_everywhere(3)
    world.wait(3600)
    world.end(clean=True)
    world.boot(rtc=False)
    world.emit_everywhere(3)
    world.wait(3600)
    world.settle()


def the_floor_over_restarts(world: World) -> None:
    """Synchronised once, and then 1970 at every start, by a stop and by a kill."""
    world.boot()
    world.wait(30 * DAY_S, step=DAY_S / 2)
    world.emit_everywhere()
    for clean in (False, False, True, False, True, True):
        world.end(clean=clean)
        world.wait_off(7200)
        world.boot(rtc=False)
        world.emit_everywhere()
        world.wait(1800, step=300)
    world.settle()


def synchronisation_is_lost(world: World) -> None:
    """The time servers are gone, days later the clock too; no event says so in between."""
    world.boot(rtc=False)
    world.machine.synchronise()
    world.wait(2 * DAY_S)
    world.machine.synced = False
    world.wait(DAY_S)
    world.machine.set(-10 * YEAR)
    world.emit_everywhere()
    world.wait(1800, step=300)
    world.end()
    world.boot(rtc=False)
    world.emit_everywhere()
    world.settle()


def synchronised_for_a_minute(world: World) -> None:
    """All that shows it later is the guard file: the stream's newest event is of a wrong clock."""
    world.boot(rtc=False)
    world.machine.synchronise()
    world.wait(15, step=1)
    world.emit(Stream.EVENT)
    world.wait(60, step=1)
    world.machine.set(-10 * YEAR)
    world.emit(Stream.EVENT)
    world.end()
    world.boot(rtc=False)
    world.settle()


def nobody_can_know(world: World) -> None:
    """The boot is over before its birth was heard; the broker's memory of it tells no time."""
    world.boot(rtc=False)
    world.emit_everywhere(3)
    world.connect()
    world.line.up = [m for m in world.line.up if not m.topic.endswith("presence")]
    retained = world.line.retained
    world.take(world.line.up)
    world.line.up.clear()
    world.wait(DAY_S)
    assert retained is not None
    world.take([replace(retained, retained=True)])
    world.check_shown()
    world.end()
    world.boot(rtc=False)
    world.emit_everywhere(3)
    world.settle()


STORIES: Final[tuple[tuple[Callable[[World], None], dict[str, float]], ...]] = (
    (sixty_days_offline, TTL),
    (sixty_days_in_1970, TTL),
    (synchronised_late, TTL),
    (ten_years_ahead, TTL),
    (ten_years_back, TTL),
    (back_again_and_again, TTL),
    (booted_ten_years_ahead, TTL),
    (the_floor_over_restarts, TTL),
    (synchronisation_is_lost, TTL),
    (synchronised_for_a_minute, TTL),
    (nobody_can_know, TTL),
)


# -- random walks --------------------------------------------------------------------------------


def walk(world: World, chance: random.Random) -> None:
    if chance.random() < 0.3:
        world.machine.set(chance.randint(-10, 10) * YEAR)
    world.boot(rtc=chance.random() < 0.7)
    steps = (_emit, _emit, _emit, _wait, _wait, _talk, _talk, _drop, _jump_by, _sync, _restart)
    for _ in range(STEPS):
        chance.choice(steps)(world, chance)
    world.check_shown()
    if chance.random() < 0.5:
        world.expire_all()
    world.settle()


def _emit(world: World, chance: random.Random) -> None:
    world.emit(chance.choice(list(Stream)), chance.choice((1, 1, 3, 60)))


def _wait(world: World, chance: random.Random) -> None:
    seconds = chance.choice((5.0, 90.0, 1800.0, 6 * 3600.0, 3 * DAY_S))
    world.wait(seconds, step=max(1.0, seconds / 10))


def _talk(world: World, chance: random.Random) -> None:
    world.connect()
    if chance.random() < 0.3:
        # The birth, or all else, gets lost on the way.
        lost = chance.random() < 0.5
        world.line.up = [m for m in world.line.up if m.topic.endswith("presence") != lost]
    if chance.random() < 0.3:
        world.line.down.clear()
    world.exchange(delay=chance.uniform(0, SLOWEST_S) if chance.random() < 0.5 else 0.0)
    if chance.random() < 0.5:
        world.disconnect()


def _drop(world: World, chance: random.Random) -> None:
    """The line is gone, and what was under way; the console may hear what the broker keeps."""
    world.disconnect()
    world.line.up.clear()
    world.line.down.clear()
    if world.line.retained is not None and chance.random() < 0.5:
        world.take([world.line.retained])
        world.line.down.clear()


def _jump_by(world: World, chance: random.Random) -> None:
    world.machine.set(world.machine.error + chance.choice((-10 * YEAR, -HOUR, HOUR, 10 * YEAR)))


def _sync(world: World, chance: random.Random) -> None:
    if chance.random() < 0.3:
        world.machine.synced = False
    else:
        world.machine.synchronise()
    world.wait(3, step=1)  # the housekeeper looks once a second


def _restart(world: World, chance: random.Random) -> None:
    world.end(clean=chance.random() < 0.5)
    world.line.up.clear()
    if chance.random() < 0.4:
        world.start()
        return
    world.wait_off(chance.choice((30.0, 7200.0, 20 * DAY_S)))
    world.boot(rtc=chance.random() < 0.5)


# -- the suite -----------------------------------------------------------------------------------


def run(plan: Plan, make_world: type[World] = World) -> Outcome:
    outcome = Outcome()
    told = time.monotonic()
    for case in plan.cases:
        _run_case(plan, case, make_world, outcome)
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            plan.tell(f"{outcome.count} cases, {outcome.acknowledged:,} events")
    return outcome


@cache
def _made() -> tuple[tempfile.TemporaryDirectory[str], tuple[Path, Path]]:
    """Templates, which go with the process; in memory, since nothing here is to outlive power."""
    folder = tempfile.TemporaryDirectory(dir=memory())
    return folder, templates(Path(folder.name))


def _run_case(plan: Plan, case: int, make_world: type[World], outcome: Outcome) -> None:
    chance = plan.chance(case)
    story, ttl = STORIES[case] if case < len(STORIES) else (None, chance.choice((TTL, SHORT)))
    name = "walk" if story is None else story.__name__
    folder = Path(tempfile.mkdtemp(dir=memory()))
    world = make_world(folder / "case", _made()[1], ttl)
    with on_this_machine(world.machine):
        try:
            if story is None:
                walk(world, chance)
            else:
                story(world)
        except AssertionError as error:
            outcome.failures.append(f"case {case} ({name}): {error}")
            plan.tell(outcome.failures[-1])
        finally:
            world.close()
            shutil.rmtree(folder)
    outcome.count += 1
    outcome.acknowledged += len(world.numbers)
    outcome.figures["expired, as they should"] = int(
        outcome.figures.get("expired, as they should", 0)
    ) + len(world.lost)
    outcome.figures["virtual days"] = round(
        float(outcome.figures.get("virtual days", 0)) + world.days, 1
    )


class _Credulous(Housekeeper):
    """Believes any clock, and any time that was stamped."""

    async def _expire(self, stream: Stream) -> None:
        clock = self._clock
        self._clock = _Believed(clock.boot)
        try:
            await super()._expire(stream)
        finally:
            self._clock = clock


class _Believed(MachineClock):
    def stamp(self) -> Stamp:
        return replace(super().stamp(), synced=True)


class _CredulousBox(KeptBox):
    make_housekeeper = _Credulous


class _CredulousWorld(World):
    make_box = _CredulousBox


class _Floorless(MachineClock):
    def raise_floor(self, floor: int) -> None:
        """Forget what was written down."""


class _FloorlessWorld(World):
    make_clock = _Floorless


def _story(story: Callable[[World], None], make_world: type[World]) -> Callable[[Plan], Outcome]:
    case = [one for one, _ in STORIES].index(story)
    return lambda plan: run(replace(plan, cases=[case]), make_world)


SUITE: Final = Suite(
    "times",
    "virtual clock: ±10 years, backward jumps, 60 days offline, boot at 1970",
    run,
    quick=len(STORIES) + 5,
    full=len(STORIES) + 400,
    controls=(
        Control(
            "times to live judged by an unsynchronised clock",
            _story(ten_years_ahead, _CredulousWorld),
            1,
        ),
        Control(
            "a clock that forgets its floor at the start",
            _story(the_floor_over_restarts, _FloorlessWorld),
            1,
        ),
    ),
)
