"""Bit flips and truncations of a box's database and its log, with a real console behind the box.

A store with known content is closed or killed, and a case damages it somewhere. Then the box starts
on it, reads, heals and sends everything; in the end box and console must agree: each promised event
is visible or shown as lost, and nothing is visible that was not emitted. What is not on a damaged
page may not be lost. A stretch of cases shares one store.
"""

from __future__ import annotations

import copy
import multiprocessing
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final
from unittest.mock import patch

from tests.chaos.delivery_cases import Case
from tests.chaos.delivery_parts import Box, Console, memory, templates
from tests.chaos.delivery_truth import Disk, Truth, lost
from tests.chaos.machine_delivery import Running
from tests.chaos.machine_disasters import PAGE, Disasters
from tests.chaos.suite import Control, Outcome, Plan, Suite

from nexus_agent import logs
from nexus_agent.protocol import Segment, Stream, open_segment
from nexus_agent.store import buffer, guard

STRETCH: Final = 30
"""Cases that share one store."""
STEPS: Final = 25
QUOTA: Final = 4_000_000
_TELL_S: Final = 10.0
_VERIFIERS: Final = (
    "nexus_agent.protocol.segments.verify",
    "nexus_agent.store.reader.verify",
    "nexus_agent.store.carve.verify",
)
"""Who looks at the CRC."""


class World(Disasters):
    """One box and a console, driven by dice."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes: list[Box] = []
        self.is_older = False
        """A log that ends early leaves an older database: as with one that was restored, numbers
        may be given again, and the console tells the two apart."""

    def grow(self, dice: random.Random) -> None:
        """A life that leaves several epochs, history, losses, and much that waits."""
        self.begin(QUOTA)
        for _ in range(STEPS):
            stream = dice.choice(list(Stream))
            match dice.randrange(12):
                case 0 | 1 | 2 | 3:
                    self.emit(0, stream, dice.randint(1, 5))
                case 4 | 5:
                    self.emit_big(0, stream, 1)
                case 6 | 7:
                    self.emit_everywhere(0, dice.randint(1, 3))
                case 8 | 9 if dice.random() < 0.5:
                    self.talk(dice.randint(1, 6))
                case 10 if dice.random() < 0.4:
                    self.renew(0)
                    self.join(self.running[0])
                case 11:
                    self.restart(0, rebooted=False, clean=dice.random() < 0.5)
                case _:
                    self.time_passes(0, 6.0, remembers=dice.random() < 0.5)

    def talk(self, count: int) -> None:
        """Some of what waits is delivered, and acknowledged."""
        for _ in range(count):
            if self.network.up:
                self.deliver_in_order(3)
            if self.network.down:
                self.acknowledge(0, again=False)

    def run_box(self, folder: Path, disk: Disk, quota: int) -> None:
        box = Box(self.loop, folder, self.network, quota)
        self.boxes.append(box)
        box.on_sealed = lambda segment: self.truth.seal(disk, segment)
        self.loop.run(box.start(self.new_clock()))
        self.running.append(Running(box, disk))

    def is_taken_for_another(self, event: int) -> bool:
        if self.is_older:
            return super().is_taken_for_another(event)
        assert not self.truth.collides(event), f"{self.truth.numbers[event]} was given twice"
        return False

    def free(self) -> None:
        """Let go of everything but the folder."""
        for box in self.boxes:
            for end in (box.stop, box.database.close):
                # What failed is told already; a thread that is left would keep us from ending.
                with suppress(Exception):
                    self.loop.run(end())
        self.loop.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.console.close()


@dataclass(frozen=True, slots=True)
class Store:
    """A store with known content, as a box has left it. pages: where each waiting event lies."""

    folder: Path
    truth: Truth
    disk: Disk
    closed: bool
    pages: dict[int, set[int]]

    @property
    def box(self) -> Path:
        return self.folder / "box"


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=memory(), prefix="nexus-rot-") as name:
        yield Path(name)


def _world(made: tuple[Path, Path], scratch: Path) -> World:
    """A new one, from the templates *made*, in a folder below *scratch*."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    known = {"case": Case(0, random.Random(0), place, *made), "tally": Outcome()}
    world: World = type("World", (World,), known)()
    return world


def make_store(dice: random.Random, made: tuple[Path, Path], scratch: Path) -> Store:
    world = _world(made, scratch)
    world.grow(dice)
    box, closed = world.running[0].box, dice.random() < 0.6
    waiting = [
        s for s in box.on_disk() if _waits(box.outbox.positions.reached(s.stream, s.epoch), s)
    ]
    world.loop.run(box.stop() if closed else box.kill())
    disk = world.running.pop().disk
    world.boxes.clear()
    world.free()
    shutil.rmtree(box.folder.with_name("box.left"), ignore_errors=True)
    return Store(world.folder, world.truth, disk, closed, _pages(box.folder / "agent.db", waiting))


def _waits(reached: int, segment: Segment) -> bool:
    return segment.first > reached


def _pages(database: Path, segments: list[Segment]) -> dict[int, set[int]]:
    """On which pages of the file the payload of each event's segment is found."""
    file = database.read_bytes()
    found: dict[int, set[int]] = {}
    for segment in segments:
        pages: set[int] = set()
        size = len(segment.payload)
        # Any page's share of a payload holds one of these windows whole.
        for start in [*range(0, size, 256), max(size - 32, 0)]:
            part, at = segment.payload[start : start + 32], -1
            while len(part) > 8 and (at := file.find(part, at + 1)) >= 0:
                pages |= {at // PAGE, (at + len(part) - 1) // PAGE}
        for event in open_segment(segment):
            if isinstance(event.data, dict) and "event" in event.data:
                found[event.data["event"]] = pages
    return found


# -- damage


@dataclass(frozen=True, slots=True)
class Damage:
    """What was done to which file. pages: those of the database that were touched."""

    text: str
    name: str
    pages: range | set[int]


def harm(folder: Path, case: int, dice: random.Random) -> Damage:
    """Flip bits in even cases, truncate in odd ones."""
    files = [folder / "agent.db"]
    log = folder / "agent.db-wal"
    if log.exists() and log.stat().st_size:
        files.append(log)
    path = dice.choice(files)
    content = bytearray(path.read_bytes())
    if case % 2:
        size = dice.randrange(len(content))
        if dice.random() < 0.5:
            size -= size % PAGE
        path.write_bytes(content[:size])
        pages: range | set[int] = range(size // PAGE, len(content) // PAGE + 1)
        return Damage(f"{path.name} cut to {size} of {len(content)} bytes", path.name, pages)
    places = _places(len(content), dice)
    for place in places:
        content[place] ^= 1 << dice.randrange(8)
    path.write_bytes(content)
    touched = {place // PAGE for place in places}
    return Damage(f"{path.name} flipped at {places[:4]} of {len(places)}", path.name, touched)


def _places(size: int, dice: random.Random) -> list[int]:
    match dice.randrange(6):
        case 0:
            return sorted(dice.sample(range(size), 8))
        case 1:
            start = dice.randrange(size // PAGE) * PAGE
            return [n for n in range(start, start + PAGE) if dice.random() < 0.5]
        case 2:
            # A page of the first ones: header, schema, roots.
            return [dice.randrange(min(size, 24 * PAGE))]
        case _:
            return [dice.randrange(size)]


# -- a case


def decay(store: Store, world: World, plan: Plan, case: int, outcome: Outcome) -> None:
    dice = plan.chance(case)
    shutil.copytree(store.box, world.folder / "box", ignore=shutil.ignore_patterns("*-shm"))
    world.console.close()
    shutil.copy(store.folder / "console.db", world.folder / "console.db")
    world.console = Console(world.folder / "console.db", world.network)
    world.truth = copy.deepcopy(store.truth)
    known = guard.read(world.folder / "box")
    damage = harm(world.folder / "box", case, dice)
    if len(outcome.failures) < 30:
        shutil.copytree(world.folder / "box", plan.folder / f"case-{case}")
    outcome.count += 1
    outcome.acknowledged += len(store.disk.events)
    before = len(outcome.failures)
    try:
        world.is_older = damage.name.endswith("-wal")
        disk = Disk(store.disk.events) if world.is_older else store.disk.copy()
        world.run_box(world.folder / "box", disk, QUOTA)
        _live_on(world, store, known, damage)
    except Exception as error:  # noqa: BLE001 - whatever escapes here would end the agent
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        frames = traceback.extract_tb(error.__traceback__)
        place = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        outcome.failures.append(f"{case}: {damage.text}: {error!r:.300} at {place:.300}")
    finally:
        world.free()
        shutil.rmtree(world.folder.parent, ignore_errors=True)
    if len(outcome.failures) == before:
        shutil.rmtree(plan.folder / f"case-{case}", ignore_errors=True)
    outcome.lost += any("is missing" in text for text in outcome.failures[before:])
    outcome.visible_duplicates += any("visible twice" in t for t in outcome.failures[before:])


def _live_on(world: World, store: Store, known: guard.Guard | None, damage: Damage) -> None:
    one = world.running[0]
    world.join(one)
    world.exchange(one)
    world.loop.run(one.box.inspect())
    left = world.readable(one)
    for event in one.disk.events - left:
        if not is_guarded(known, world.truth.numbers[event]):
            world.excuse(event, "its number is newer than the guard file")
    # It goes on: numbers must be new ones.
    world.emit_everywhere(0, 2)
    world.settle()
    if store.closed:
        lanes = world.console.lanes()
        for event, pages in store.pages.items():
            if not pages.intersection(damage.pages):
                number = world.truth.numbers[event]
                told = "lost" if lost(lanes, number) else "gone"
                assert world.truth.visible[event], f"{number} is {told}, and was not damaged"


def is_guarded(known: guard.Guard | None, number: tuple[object, int, int]) -> bool:
    """Whether the guard file was written after *number* was given: its loss must be declared."""
    stream, epoch, seq = number
    if known is None or epoch != known.epoch:
        return known is not None and epoch < known.epoch
    return seq < next((n for s, n in known.next.items() if s is stream), 1)


# -- the suite


@dataclass(frozen=True, slots=True)
class _Stretch:
    """For a process of its own."""

    seed: int
    cases: Sequence[int]
    kept: Path
    number: int
    checked: bool


def run(plan: Plan, *, checked: bool = True) -> Outcome:
    outcome = Outcome()
    told = time.monotonic()
    stretches = [
        _Stretch(plan.seed, list(cases), plan.folder, number, checked)
        for number, cases in groupby(plan.cases, lambda case: case // STRETCH)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(2, len(stretches)), mp_context=context) as pool:
        for done in as_completed([pool.submit(_stretch, one) for one in stretches]):
            part = done.result()
            outcome.count += part.count
            outcome.acknowledged += part.acknowledged
            outcome.lost += part.lost
            outcome.visible_duplicates += part.visible_duplicates
            outcome.failures += part.failures
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                plan.tell(f"{outcome.count:,} of {len(plan.cases):,} damaged stores")
    return outcome


def _stretch(stretch: _Stretch) -> Outcome:
    logs.configure(logs.LogSettings(level="error"))
    outcome = Outcome()
    plan = Plan(stretch.seed, stretch.cases, stretch.kept, print)
    with ExitStack() as stack:
        stack.enter_context(patch.dict(buffer.WINDOW_S, dict.fromkeys(Stream, 0.0)))
        # Every damaged file is a critical word in the log.
        stack.enter_context(patch("nexus_agent.store.database.log"))
        scratch = stack.enter_context(_scratch())
        made = templates(scratch)
        store = make_store(random.Random(f"{stretch.seed}:store-{stretch.number}"), made, scratch)
        if not stretch.checked:
            for name in _VERIFIERS:
                stack.enter_context(patch(name, lambda _: None))
        for case in stretch.cases:
            decay(store, _world(made, scratch), plan, case, outcome)
    return outcome


SUITE: Final = Suite(
    name="rot",
    what="bit flips and truncations of the box's database and its log",
    run=run,
    quick=60,
    full=2000,
    controls=(Control("no CRC is checked", partial(run, checked=False), 30),),
)
