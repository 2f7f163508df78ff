"""Disks and databases that are thrown away, copied, rolled back or damaged.

What was on such a disk only can be nowhere: it is *excused*, event by event, at that moment and
never later. Everything else is held to the whole promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hypothesis.stateful import precondition, rule
from tests.integration.delivery_machine import Delivery, Running, places
from tests.integration.delivery_parts import DAMAGED_WITH, copy
from tests.integration.delivery_truth import Disk

from nexus_agent.protocol import SegmentError, open_segment
from nexus_agent.store import guard

PAGE = len(DAMAGED_WITH)
BOXES = 2


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

    @rule(place=places, page=places)
    def damage_page(self, place: int, page: int) -> None:
        """A page of the database is another's. What is readable now is still promised."""
        one = self.pick(place)
        self.loop.run(one.box.stop())
        known = guard.read(one.box.folder)
        path = one.box.database.path
        with path.open("r+b") as file:
            file.seek(page % (path.stat().st_size // PAGE) * PAGE)
            file.write(DAMAGED_WITH)
        self.loop.run(one.box.start(one.box.clock))
        self.loop.run(one.box.inspect())
        left = self.readable(one)
        for event in one.disk.events - left:
            if not is_guarded(known, self.truth.numbers[event]):
                self.excuse(event, "its page was damaged, and nothing else told of it")

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
        """Whether the console has settled another disk's event under the same number.

        Its acknowledgement names numbers only, so a box that has sent its own event under this one,
        and whose message is lost, lets go of it; and where a loss was shown of this number, the
        other's event takes its place.
        """
        bearers = self.truth.bearers[self.truth.numbers[event]]
        return bool((bearers - {event}) & self.truth.settled)

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
        """Boxes send again what they still have. Of a number that two have used, one does."""
        before = {event for event, count in self.truth.visible.items() if count}
        self.console.restore(self.backups[which % len(self.backups)])
        self.truth.look_anew(self.console)
        kept = set().union(*(one.disk.events for one in self.running))
        for event in before - self.truth.visible.keys():
            if event not in kept or self.truth.collides(event):
                self.truth.excused[event] = "the console alone had it"


def is_guarded(known: guard.Guard | None, number: tuple[object, int, int]) -> bool:
    """Whether the guard file knows of *number*: then its loss must be declared."""
    stream, epoch, seq = number
    return (
        known is not None
        and epoch == known.epoch
        and seq < next((n for s, n in known.next.items() if s is stream), 1)
    )
