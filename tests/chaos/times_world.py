"""One box and one console on a time that a test moves, and what must hold whatever the clock says.

The box's clock is the product's own on a machine whose clocks are set here. True time is the
loop's; the console's clock is right. Who runs this patches the modules as `on_this_machine` does.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select
from tests.chaos.delivery_loop import Loop
from tests.chaos.delivery_parts import Box, BoxClock, Console, Network, copy
from tests.unit.agent.store.boxed import HOUR, Hours

from nexus_agent.clock import BUILT, Clock
from nexus_agent.protocol import Presence, Segment, Stamp, Stream, open_segment
from nexus_agent.store import guard, ledger
from nexus_agent.store.housekeeping import REMEMBER_S, Housekeeper, Keep
from nexus_console.blocks import with_lines
from nexus_console.clocks import SYNCED, TOLERANCE, UNKNOWN
from nexus_console.db.models import events
from nexus_console.intake import Inbound

SECOND: Final = 1_000_000_000
DAY_S: Final = 86_400.0
YEAR: Final = 8766 * HOUR
BEGINNING: Final = BUILT + YEAR
"""True time at the start of each case, ns."""
TYPE: Final = "test.value"
HISTORY_H: Final = 72.0
SLOWEST_S: Final = 60.0
"""How long a message may take to the console: an arrival tells the time no better than that."""
ROUNDS: Final = 6


class Machine:
    """The clocks of the computer that the box is. It stands in for `time` in `nexus_agent.clock`.

    error: ns that the wall clock is off; synced: what the kernel says. Monotonic time never leaps.
    """

    CLOCK_BOOTTIME: Final = 7

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._start = loop.now
        self._boots = 0
        self.error = 0
        self.synced = True
        self.boot()

    @property
    def true(self) -> int:
        return BEGINNING + round((self._loop.now - self._start) * SECOND)

    def boot(self, *, rtc: bool = True) -> str:
        """Power on; without a real-time clock it is 1970. The new boot's id."""
        self._boots += 1
        self._booted = self.true - 20 * SECOND
        if not rtc:
            self.error, self.synced = 20 * SECOND - self.true, False
        return f"boot-{self._boots}"

    def set(self, error: int) -> None:
        """Somebody sets the clock, and the kernel no longer calls it synchronised."""
        self.error, self.synced = error, False

    def synchronise(self) -> None:
        self.error, self.synced = 0, True

    def time_ns(self) -> int:
        return self.true + self.error

    def clock_gettime_ns(self, _clock: int) -> int:
        return self.true - self._booted


class MachineClock(BoxClock):
    """The product's clock, as one boot of a machine has it."""

    def stamp(self) -> Stamp:
        return Clock.stamp(self)


@contextmanager
def on_this_machine(machine: Machine) -> Iterator[None]:
    """Time does not pass by itself: nobody waits for company."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nexus_agent.store.buffer.WINDOW_S", dict.fromkeys(Stream, 0.0))
        patch.setattr("nexus_agent.clock.time", machine)
        patch.setattr("nexus_agent.clock._synchronised", lambda _since: machine.synced)
        yield


class Line(Network):
    """A network that knows when a message reached the console."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: set[str] = set()
        """Boots whose birth the console has heard from the box itself."""

    def arrived(self, batch: list[Inbound], now: int) -> list[Inbound]:
        for message in batch:
            if message.topic.endswith("presence") and not message.retained:
                birth = Presence.decode(message.payload)
                self.fresh |= {birth.boot} if birth.boot else set()
        return [replace(message, received=now) for message in batch]


class KeptBox(Box):
    """A box whose housekeeper runs all the time."""

    make_housekeeper = Housekeeper
    lifetime: Hours = Hours()

    async def start(self, clock: BoxClock) -> None:
        await super().start(clock)
        keeper = self.make_housekeeper(
            self.outbox, self.database, clock, Keep(HISTORY_H, 1e6), self.lifetime
        )
        self._keeping = self.loop.create_task(keeper.run(), name="housekeeping")

    async def stop(self) -> None:
        await self._leave()
        await super().stop()

    async def kill(self) -> None:
        await self.loop.quiet()
        await self._leave()
        await super().kill()

    async def _leave(self) -> None:
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as it truly was. time: ns; synced: whether the box's clock was, and is believed."""

    stream: Stream
    time: int
    boot: str
    synced: bool


class World:
    """One case. Everything that `check` and `settle` find wrong is an AssertionError."""

    make_box = KeptBox
    make_clock = MachineClock

    def __init__(self, folder: Path, templates: tuple[Path, Path], ttl: dict[str, float]) -> None:
        self.loop = Loop()
        self.machine = Machine(self.loop)
        self.line = Line()
        self.ttl = ttl
        self.happened: list[Happened] = []
        self.numbers: dict[int, tuple[Stream, int, int]] = {}
        self.lost: set[int] = set()
        self.written = 0
        """The newest synchronised time that the box has written down, ns."""
        self._newest: dict[Stream, tuple[int, int, int]] = {}
        self._sessions = 0
        folder.mkdir(parents=True)
        copy(templates[0], folder / "box")
        shutil.copy(templates[1], folder / "console.db")
        self.console = Console(folder / "console.db", self.line)
        self.box = self.make_box(self.loop, folder / "box", self.line, 256_000_000)
        self.box.lifetime = Hours(**ttl)
        self.box.on_sealed = self._seal

    def close(self) -> None:
        self.loop.run(self.box.stop())
        self.loop.run(self.loop.shutdown_default_executor())
        self.loop.close()
        self.console.close()

    # -- what may happen

    def boot(self, *, rtc: bool = True) -> None:
        self.boot_id = self.machine.boot(rtc=rtc)
        self.start()

    def start(self) -> None:
        """The agent starts, within the boot that there is."""
        self.loop.run(self.box.start(self.make_clock(self.boot_id)))
        self.check_clock()

    def end(self, *, clean: bool = False) -> None:
        self.loop.run(self.box.stop() if clean else self.box.kill())
        # The guard file may be so much older than the newest event, which a clock that went wrong
        # behind it may hide.
        self.written -= round(REMEMBER_S * SECOND)
        self._note_guard()

    def wait_off(self, seconds: float) -> None:
        """Time passes while the machine is switched off."""
        self.loop.now += seconds

    def emit(self, stream: Stream, count: int = 1) -> None:
        """*count* events of one moment."""

        async def work() -> None:
            stamp = self.box.clock.stamp()
            first = len(self.happened)
            one = Happened(stream, self.machine.true, stamp.boot, stamp.synced)
            self.happened += [one] * count
            values = [(TYPE, {"event": first + n}) for n in range(count)]
            await self.box.outbox.emit("test", values, stream)
            if stamp.synced:
                self.written = max(self.written, stamp.wall)

        self.loop.run(work())
        assert len(self.numbers) == len(self.happened), "an event was promised and never sealed"

    def emit_everywhere(self, count: int = 1) -> None:
        for stream in Stream:
            self.emit(stream, count)

    def wait(self, seconds: float, *, step: float = 3600.0) -> None:
        """Time passes; the housekeeper does its rounds at each step."""
        while seconds > 0:
            self.loop.now += min(step, seconds)
            seconds -= step
            self.loop.run(self.loop.quiet())
        self._note_guard()
        self.check_clock()
        self.check_box()

    def connect(self) -> None:
        self._sessions += 1
        self.loop.run(self.box.connect(f"session-{self._sessions}"))

    def disconnect(self) -> None:
        self.loop.run(self.box.disconnect())

    def exchange(self, *, delay: float = 0.0) -> None:
        """All that is under way arrives, *delay* seconds late at first, until nobody speaks."""
        self.loop.now += delay
        while self.line.up or self.line.down:
            self.take(self.line.up[:20])
            del self.line.up[:20]
            while self.line.down:
                self.loop.run(self.box.take_ack(self.line.down.pop(0)))
            self.loop.run(self.loop.quiet())

    def take(self, batch: list[Inbound]) -> None:
        """The console takes *batch* now."""
        self.console.take(self.line.arrived(batch, self.machine.true))

    @property
    def days(self) -> float:
        """True time since the start."""
        return (self.machine.true - BEGINNING) / HOUR / 24

    # -- what must hold

    def _seal(self, segment: Segment) -> None:
        for event in open_segment(segment):
            if event.type == TYPE:
                number = (event.stream, event.epoch, event.seq)
                name = event.data["event"]
                # Who came later has the higher number, whatever the clock said.
                before = self._newest.get(event.stream, (0, 0, -1))
                assert before < (*number[1:], name), f"{number} is out of order"
                self._newest[event.stream] = (*number[1:], name)
                self.numbers[name] = number

    def _note_guard(self) -> None:
        known = guard.read(self.box.folder)
        if known is not None:
            self.written = max(self.written, known.time)

    def check_clock(self) -> None:
        """It stays above what was written down, and makes no time up that is still to come."""
        stamp, true = self.box.clock.stamp(), self.machine.true
        if stamp.synced:
            assert stamp.wall == true, "a synchronised clock is not believed"
            return
        assert stamp.wall >= self.written, (
            f"unsynchronised, the clock fell {(self.written - stamp.wall) / HOUR:.2f} h below "
            "what was written down"
        )
        if self.machine.time_ns() < BUILT:
            assert stamp.wall <= true, "the floor is ahead of true time"

    def check_box(self) -> None:
        """What was dropped was too old, and what may stay is there."""
        for entry, _ in self.loop.run(self.box.outbox.losses(1000)):
            assert entry.cause == ledger.TOO_OLD, f"{entry} for no reason"
        gone = self._declared()
        now = self.machine.true
        for event in sorted(gone - self.lost):
            hours = (now - self.happened[event].time) / HOUR
            limit = self.ttl.get(self.happened[event].stream, 0.0)
            assert 0 < limit < hours, f"event {event} expired after {hours:.1f} h"
        self.lost = gone
        there = {
            (segment.stream, segment.epoch, seq)
            for segment in self.box.on_disk()
            for seq in range(segment.first, segment.last + 1)
        }
        for event, number in self.numbers.items():
            if number in there or event in self.lost:
                continue
            hours = (now - self.happened[event].time) / HOUR
            assert self._released(event), f"event {event} is gone and was neither sent nor declared"
            assert hours > HISTORY_H, f"event {event} left the history after {hours:.1f} h"

    def _declared(self) -> set[int]:
        """Events that the box has declared lost."""
        events = {number: event for event, number in self.numbers.items()}
        lost = (
            (entry.stream, entry.epoch, seq)
            for entry, _ in self.loop.run(self.box.outbox.losses(1000))
            for seq in range(entry.first, entry.last + 1)
        )
        return {events[number] for number in lost if number in events}

    def _released(self, event: int) -> bool:
        stream, epoch, seq = self.numbers[event]
        return seq <= self.box.outbox.positions.reached(stream, epoch)

    def expire_all(self) -> None:
        """The clock is good at last, and what is behind everything becomes too old."""
        self.machine.synchronise()
        self.loop.now += 11.0  # the kernel is asked every ten seconds
        self.emit_everywhere(60)  # of a size that is not merged with what stands before it
        behind = len(self.happened)
        self.wait(max(self.ttl.values()) * 3600 + 7200, step=DAY_S / 2)
        waiting = {
            event
            for event in range(behind)
            if self.ttl.get(self.happened[event].stream)
            and not self._released(event)
            and event not in self.lost
        }
        assert not waiting, f"{len(waiting)} events are too old and still wait: {min(waiting)}…"

    def settle(self) -> None:
        """Everything is delivered; what the console shows is complete, in order, and true."""
        for _ in range(ROUNDS):
            self.loop.now += 20.0
            self.loop.run(self.loop.quiet())
            self.connect()
            self.exchange()
            if all(map(self._released, self.numbers.keys() - self.lost)):
                break
        self.check_box()
        shown = self.check_shown()
        for event, number in self.numbers.items():
            assert event in shown or event in self.lost, f"event {event}, {number}, is missing"
        lanes = self.console.lanes()
        assert all(lane.gaps == [] for lane in lanes), "a gap never closed"
        declared = sum(loss.count for lane in lanes for loss in lane.losses)
        # What the box gave up may have arrived before, unacknowledged.
        lost = self.lost - shown
        assert declared == len(lost), f"{declared} losses are shown, and {len(lost)} never came"
        assert {loss.cause for lane in lanes for loss in lane.losses} <= {ledger.TOO_OLD}
        assert sum(lane.conflicts + lane.undecodable for lane in lanes) == 0

    def check_shown(self) -> set[int]:
        """The console's times are right, or it says that it does not know; each event once."""
        order_of_all = (events.c.stream, events.c.epoch, events.c.seq)
        with self.console.database.read() as connection:
            found_rows = connection.execute(select(events).order_by(*order_of_all)).all()
            rows = list(with_lines(connection, found_rows))
        found: list[tuple[int, Any]] = [
            (json.loads(row.line)["data"]["event"], row) for row in rows if row.type == TYPE
        ]
        for stream in {row.stream for _, row in found}:
            order = [event for event, row in found if row.stream == stream]
            assert order == sorted(set(order)), "events are twice there, or out of order"
        shown = {event for event, _ in found}
        # What the agent says of itself, such as of a loss, tells of its clock, too.
        own = (json.loads(row.line) for row in rows if row.type != TYPE)
        known = (
            self.line.fresh
            | {self.happened[event].boot for event in shown if self.happened[event].synced}
            | {event["boot"] for event in own if event["synced"]}
        )
        for event, row in found:
            self._check_time(event, row.time, row.clock, known)
        return shown

    def _check_time(self, event: int, time: int, clock: int, known: set[str]) -> None:
        truth = self.happened[event]
        if clock == UNKNOWN:
            assert truth.boot not in known, f"event {event} is of a boot whose clock is known"
            return
        assert truth.boot in known, f"event {event}: nobody can know its time, yet it is shown"
        assert (clock == SYNCED) == truth.synced, f"event {event}: says clock {clock}"
        slack = 1000 if truth.synced else TOLERANCE + int(SLOWEST_S) * SECOND
        off = abs(time - truth.time)
        assert off <= slack, f"event {event} is shown {off / SECOND:,.3f} s off"
