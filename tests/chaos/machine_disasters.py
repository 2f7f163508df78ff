"""Disks and databases that are thrown away, copied, rolled back or damaged.

What was on such a disk only can be nowhere: it is *excused*, event by event, at that moment and
never later. Everything else is held to the whole promise.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.chaos.delivery_parts import DAMAGED_WITH, copy
from tests.chaos.delivery_truth import Disk, Number
from tests.chaos.machine_delivery import Delivery, Running, places

from nexus_agent.protocol import SegmentError, open_segment
from nexus_agent.store import guard
from nexus_console.standing import LaneState

PAGE = len(DAMAGED_WITH)
BOXES = 2
_DECLARED = "SELECT 1 FROM loss WHERE stream=? AND epoch=? AND first<=? AND last>=?"


@dataclass(frozen=True, slots=True)
class Copy:
    """A state folder as it was, and what it had been given by then."""

    folder: Path
    disk: Disk


class Disasters(Delivery):
    """What is thrown away may be missing; nothing else may."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Copy] = []
        self.backups: list[Path] = []
        self.forgotten: set[int] = set()
        """What the console had before it was restored, and not after."""

    # -- disks

    @precondition(lambda self: len(self.copies) < 3)
    @rule(place=places)
    def copy_disk(self, place: int) -> None:
        one = self.pick(place)
        to = self.folder / f"copy-{len(self.copies)}"
        self.loop.run(self.loop.quiet())
        copy(one.box.folder, to)
        self.copies.append(Copy(to, one.disk.copy()))

    @precondition(lambda self: self.copies)
    @rule(place=places, which=places)
    def restore_disk(self, place: int, which: int) -> None:
        """The whole state folder is as it was once."""
        one, old = self.pick(place), self.copies[which % len(self.copies)]
        self.loop.run(one.box.kill())
        copy(old.folder, one.box.folder)
        self.start_from(one, old, None)

    @precondition(lambda self: self.copies)
    @rule(place=places, which=places)
    def restore_database(self, place: int, which: int) -> None:
        """The database is as it was once; what stands in the guard file is declared lost."""
        one, old = self.pick(place), self.copies[which % len(self.copies)]
        self.loop.run(one.box.kill())
        known = one.box.folder / guard.FILE_NAME
        kept = known.read_bytes()
        copy(old.folder, one.box.folder)
        known.write_bytes(kept)
        self.start_from(one, old, guard.read(one.box.folder))

    def start_from(self, one: Running, old: Copy, known: guard.Guard | None) -> None:
        before = one.disk
        one.disk = disk = old.disk.copy()
        for event in before.events - disk.events:
            if is_guarded(known, self.truth.numbers[event]):
                disk.events.add(event)  # this disk owes the word that it is lost
            else:
                self.excuse(event, "it was on a disk that was thrown away")
        one.box.on_sealed = lambda segment: self.truth.seal(disk, segment)
        self.loop.run(one.box.start(self.new_clock()))
        self.join(one)

    @precondition(lambda self: len(self.running) < BOXES)
    @rule(place=places)
    def clone(self, place: int) -> None:
        """A second box goes on from the same disk, under the same name."""
        one = self.pick(place)
        self.loop.run(self.loop.quiet())
        folder = self.folder / f"box-{len(self.running)}"
        copy(one.box.folder, folder)
        self.run_box(folder, one.disk.copy(), one.box.quota)

    @rule(place=places, page=places, clean=st.booleans())
    def damage_page(self, place: int, page: int, clean: bool) -> None:
        """A page of the database is another's. What is readable now is still promised."""
        one = self.pick(place)
        self.loop.run(one.box.stop() if clean else one.box.kill())
        known = guard.read(one.box.folder)
        path = one.box.database.path
        with path.open("r+b") as file:
            file.seek(page % (path.stat().st_size // PAGE) * PAGE)
            file.write(DAMAGED_WITH)
        self.loop.run(one.box.start(one.box.clock))
        self.loop.run(one.box.inspect())
        left = self.readable(one)
        newest: dict[tuple[object, int], int] = {}
        for stream, epoch, seq in map(self.truth.numbers.__getitem__, left):
            newest[stream, epoch] = max(seq, newest.get((stream, epoch), 0))
        for event in one.disk.events - left:
            stream, epoch, seq = number = self.truth.numbers[event]
            if seq > newest.get((stream, epoch), 0) and not is_guarded(known, number):
                self.excuse(event, "its page was the newest, and nothing else told of it")

    def readable(self, one: Running) -> set[int]:
        found: set[int] = set()
        for segment in one.box.on_disk():
            try:
                events = open_segment(segment)
            except SegmentError:
                continue
            found |= {
                e.data["event"] for e in events if isinstance(e.data, dict) and "event" in e.data
            }
        return found

    def excuse(self, event: int, why: str) -> None:
        """Unless it is elsewhere: in the console, or on the other box's disk."""
        elsewhere = any(
            event in one.disk.events for one in self.running if not self.is_gone(one, event)
        )
        if not self.truth.visible[event] and not elsewhere:
            self.truth.excused[event] = why

    def is_gone(self, one: Running, event: int) -> bool:
        return event not in self.readable(one)

    def is_taken_for_another(self, event: int) -> bool:
        """The console has what another disk says under its number, and this never comes again.

        Its box declares it lost; or the console had it before it was restored.
        """
        number = self.truth.numbers[event]
        others = (self.truth.bearers[number] - {event}) & self.truth.settled
        if not others and number not in self.truth.words:
            return False
        return event in self.forgotten or any(
            self.declares(one, number) for one in self.running if event in one.disk.events
        )

    def declares(self, one: Running, number: Number) -> bool:
        connection = sqlite3.connect(f"file:{one.box.database.path}?mode=ro", uri=True)
        try:
            return bool(connection.execute(_DECLARED, (*number, number[2])).fetchall())
        finally:
            connection.close()

    def may_lack(self, lane: LaneState, first: int) -> bool:
        """What only a disk had that was thrown away, before something of it that was delivered."""
        return all(
            one.box.outbox.positions.limit(lane.stream, lane.epoch) < first for one in self.running
        )

    # -- the console's database

    @precondition(lambda self: len(self.backups) < 2)
    @rule()
    def back_up_console(self) -> None:
        to = self.folder / f"backup-{len(self.backups)}.db"
        self.console.back_up(to)
        self.backups.append(to)

    @precondition(lambda self: self.backups)
    @rule(which=places)
    def restore_console(self, which: int) -> None:
        """Boxes send again what they still have."""
        before = {event for event, count in self.truth.visible.items() if count}
        self.console.restore(self.backups[which % len(self.backups)])
        self.truth.look_anew(self.console)
        kept = set().union(*(one.disk.events for one in self.running))
        self.forgotten |= before - self.truth.visible.keys()
        for event in self.forgotten - kept:
            self.truth.excused[event] = "the console alone had it"


def is_guarded(known: guard.Guard | None, number: Number) -> bool:
    """Whether the guard file knows of *number*: then its loss must be declared."""
    stream, epoch, seq = number
    if known is None:
        return False
    if epoch == known.epoch:
        return seq < known.next.get(stream, 1)
    return seq <= known.closed.get(epoch, {}).get(stream, 0)
