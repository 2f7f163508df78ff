"""The delivery contract as a state machine: whatever happens on the way, each event arrives once.

Boxes and console are real; the network between them, time and misfortune are Hypothesis's.
"""

from __future__ import annotations

import base64
import random
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)
from tests.chaos.delivery_cases import Case
from tests.chaos.delivery_loop import Loop
from tests.chaos.delivery_parts import (
    Box,
    BoxClock,
    Console,
    Network,
    copy,
)
from tests.chaos.delivery_truth import TYPE, Disk, Truth
from tests.chaos.suite import Outcome
from tests.unit.agent.store.boxed import HOUR, Hours

from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream
from nexus_agent.store.errors import DamagedError, StoreError
from nexus_agent.store.housekeeping import Keep
from nexus_agent.store.segments import SEGMENT_TABLES
from nexus_console.standing import LaneState

QUOTAS: Final = (2_000_000, 64_000_000)
NOISE: Final = 60_000
"""Bytes that do not shrink: the smaller quota takes about twenty of such events."""
ROUNDS: Final = 12
"""Sessions of each box after which whatever can arrive must have arrived."""
YEARS: Final = 10 * 8766
"""Ten, in hours."""

streams = st.sampled_from(list(Stream))
places = st.integers(0, 1000)


@dataclass(slots=True)
class Running:
    """A box and what it was given to keep."""

    box: Box
    disk: Disk


class Delivery(RuleBasedStateMachine):
    """Nothing that was on a disk is thrown away here: each event arrives or is shown as lost."""

    make_console = Console
    make_box = Box
    case: ClassVar[Case]
    tally: ClassVar[Outcome]

    def __init__(self) -> None:
        super().__init__()
        self.folder = self.case.scratch / "life"
        self.folder.mkdir()
        self.loop = Loop()
        self.network = Network()
        self.truth = Truth()
        shutil.copy(self.case.console, self.folder / "console.db")
        self.console = self.make_console(self.folder / "console.db", self.network)
        self.running: list[Running] = []
        self.sessions = self.boots = 0

    @initialize(quota=st.sampled_from(QUOTAS))
    def begin(self, quota: int) -> None:
        folder = self.folder / "box"
        copy(self.case.box, folder)
        self.run_box(folder, Disk(), quota)
        self.join(self.running[0])

    def run_box(self, folder: Path, disk: Disk, quota: int) -> None:
        box = self.make_box(self.loop, folder, self.network, quota)
        box.on_sealed = lambda segment: self.truth.seal(disk, segment)
        self.loop.run(box.start(self.new_clock()))
        self.running.append(Running(box, disk))

    def new_clock(self) -> BoxClock:
        self.boots += 1
        return BoxClock(f"boot-{self.boots}")

    def teardown(self) -> None:
        try:
            if self.running:
                self.settle()
                self.count()
        finally:
            for one in self.running:
                self.loop.run(one.box.stop())
            self.loop.run(self.loop.shutdown_default_executor())
            self.loop.close()
            self.console.close()
            shutil.rmtree(self.folder)

    def count(self) -> None:
        self.tally.count += 1
        self.tally.acknowledged += len(self.truth.numbers)
        self.tally.wire_duplicates += sum(lane.duplicates for lane in self.console.lanes())

    def pick(self, place: int) -> Running:
        return self.running[place % len(self.running)]

    # -- events

    @rule(place=places, stream=streams, count=st.integers(1, 5))
    def emit(self, place: int, stream: Stream, count: int) -> None:
        self.loop.run(self._emit(self.pick(place), stream, count, big=False))

    @rule(place=places, stream=streams, count=st.integers(1, 5))
    def emit_big(self, place: int, stream: Stream, count: int) -> None:
        self.loop.run(self._emit(self.pick(place), stream, count, big=True))

    @rule(place=places, count=st.integers(1, 3))
    def emit_everywhere(self, place: int, count: int) -> None:
        for stream in Stream:
            self.loop.run(self._emit(self.pick(place), stream, count, big=False))

    async def _emit(self, one: Running, stream: Stream, count: int, *, big: bool) -> None:
        """All in one segment, or each big one alone: a commit is small beside the least quota."""
        made = [self._make(big=big) for _ in range(count)]
        for part in [[event] for event in made] if big else [made]:
            values = [(TYPE, self.truth.payloads[event]) for event in part]
            try:
                await one.box.outbox.emit("test", values, stream)
            except EmitError:
                continue
            await self.loop.quiet()
            assert one.disk.events.issuperset(part)
            self.check_box(one)

    def _make(self, *, big: bool) -> int:
        number = len(self.truth.payloads)
        noise = random.Random(number).randbytes(NOISE) if big else b""
        return self.truth.make(base64.b85encode(noise).decode())

    @rule(place=places, stream=streams, count=st.integers(1, 5), dies=st.booleans())
    def hand_over(self, place: int, stream: Stream, count: int, dies: bool) -> None:
        one = self.pick(place)

        async def work() -> None:
            for _ in range(count):
                payload = self.truth.payloads[self._make(big=False)]
                one.box.outbox.hand_over("test", TYPE, payload, stream)
            if dies:
                await one.box.kill()
                await one.box.start(one.box.clock)
            else:
                await self.loop.quiet()

        self.loop.run(work())

    # -- the network

    @rule(place=places)
    def connect(self, place: int) -> None:
        self.join(self.pick(place))

    def join(self, one: Running) -> None:
        """A box takes the line; the broker has one session of one name."""
        self.sessions += 1
        for other in self.running:
            self.loop.run(other.box.disconnect())
        self.loop.run(one.box.connect(f"session-{self.sessions}"))

    @precondition(lambda self: self.network.up)
    @rule(place=places, count=st.integers(1, 4), again=st.booleans())
    def deliver(self, place: int, count: int, again: bool) -> None:
        """A few messages from anywhere, in one transaction; they may come again."""
        batch = self._taken(place, count, again=again)
        self.take(batch)

    @precondition(lambda self: self.network.up)
    @rule(count=st.integers(1, 20))
    def deliver_in_order(self, count: int) -> None:
        self.take(self._taken(0, count, again=False))

    def _taken(self, place: int, count: int, *, again: bool) -> list[Any]:
        up = self.network.up
        start = place % len(up)
        batch = up[start : start + count]
        if not again:
            del up[start : start + count]
        return batch

    def take(self, batch: list[Any]) -> None:
        self.console.take(batch)
        self.look()

    def look(self) -> None:
        self.truth.look(self.console)
        self.truth.note_losses(self.console.lanes())

    @precondition(lambda self: self.network.up)
    @rule(committed=st.booleans(), count=st.integers(1, 20))
    def console_crashes(self, committed: bool, count: int) -> None:
        """The broker has no word of what was taken and sends it again."""
        self.console.crash(self.network.up[:count], committed=committed)
        self.look()

    @precondition(lambda self: len(self.network.up) > 1)
    @rule(seed=st.integers(0, 1000))
    def reorder(self, seed: int) -> None:
        random.Random(seed).shuffle(self.network.up)

    @precondition(lambda self: self.network.down)
    @rule(place=places, again=st.booleans())
    def acknowledge(self, place: int, again: bool) -> None:
        down = self.network.down
        place %= len(down)
        payload = down[place] if again else down.pop(place)
        self.bring(payload)

    def bring(self, payload: bytes) -> None:
        """To whoever has the line now."""
        for one in self.running:
            if one.box.connected:
                self.loop.run(one.box.take_ack(payload))
                self.check_box(one)

    @rule(what=st.sampled_from(["message", "acknowledgement", "line", "everything"]), place=places)
    def lose(self, what: str, place: int) -> None:
        """A broker that dies takes with it what it had acknowledged."""
        if what == "message" and self.network.up:
            del self.network.up[place % len(self.network.up)]
        elif what == "acknowledgement" and self.network.down:
            del self.network.down[place % len(self.network.down)]
        elif what == "line":
            for one in self.running:
                self.loop.run(one.box.disconnect())
        elif what == "everything":
            self.network.forget()

    @precondition(lambda self: self.network.retained)
    @rule()
    def console_reconnects(self) -> None:
        assert self.network.retained is not None
        self.take([self.network.retained])

    # -- the box

    @rule(place=places, rebooted=st.booleans(), clean=st.booleans())
    def restart(self, place: int, rebooted: bool, clean: bool) -> None:
        one = self.pick(place)
        self.loop.run(one.box.stop() if clean else one.box.kill())
        self.loop.run(one.box.start(self.new_clock() if rebooted else one.box.clock))
        self.join(one)

    @rule(place=places, seconds=st.sampled_from([1.0, 6.0, 11.0, 1000.0]), remembers=st.booleans())
    def time_passes(self, place: int, seconds: float, remembers: bool) -> None:
        self.loop.now += seconds
        one = self.pick(place)
        self.loop.run(one.box.tend())
        if remembers:
            self.loop.run(one.box.outbox.remember())
        self.check_box(one)

    @rule(
        place=places,
        hours=st.sampled_from([0.0, 1e6]),
        megabytes=st.sampled_from([0.0, 0.5, 1e6]),
        ttl=st.sampled_from([0.0, 24.0]),
    )
    def tidy(self, place: int, hours: float, megabytes: float, ttl: float) -> None:
        one = self.pick(place)
        lifetime = Hours(**dict.fromkeys(Stream, ttl))
        self.loop.run(one.box.tidy(Keep(hours, megabytes), lifetime))
        self.check_box(one)

    @rule(place=places, hours=st.sampled_from([-YEARS, 48, YEARS]), synced=st.booleans())
    def clock_jumps(self, place: int, hours: int, synced: bool) -> None:
        clock = self.pick(place).box.clock
        clock.wall += hours * HOUR
        clock.synced = synced

    @precondition(lambda self: all(one.box.outbox.epoch < 6 for one in self.running))
    @rule(place=places)
    def renew(self, place: int) -> None:
        """A birth tells of the eight newest closed epochs."""
        one = self.pick(place)
        with suppress(StoreError):
            self.loop.run(one.box.outbox.renew("a test"))
        self.loop.run(self.loop.quiet())

    @rule(place=places, stream=streams, which=places)
    def damage_payload(self, place: int, stream: Stream, which: int) -> None:
        """One byte of one stored segment is another from now on."""
        box = self.pick(place).box
        table = SEGMENT_TABLES[stream]
        connection = sqlite3.connect(box.database.path, isolation_level=None)
        try:
            rows = connection.execute(f"SELECT id, payload FROM {table}").fetchall()
            if rows:
                identity, payload = rows[which % len(rows)]
                at = which % len(payload)
                bad = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
                connection.execute(f"UPDATE {table} SET payload=? WHERE id=?", (bad, identity))
        except sqlite3.DatabaseError:
            return  # more than that is damaged already
        finally:
            connection.close()

    # -- what must hold

    def is_taken_for_another(self, event: int) -> bool:
        """No number is used twice here."""
        assert not self.truth.collides(event)
        return False

    def may_lack(self, lane: LaneState, first: int) -> bool:
        """No number is lost without a word here."""
        return False

    def check_box(self, one: Running) -> None:
        """Quota is kept; nothing is released that the console has not settled."""
        outbox = one.box.outbox
        assert one.box.database.space.used() <= one.box.quota
        for event in one.disk.events - self.truth.settled - self.truth.excused.keys():
            stream, epoch, seq = self.truth.numbers[event]
            is_released = outbox.positions.reached(stream, epoch) >= seq
            assert not is_released or self.is_taken_for_another(event), f"{event} was released"
        for epoch, reached in outbox.positions.acknowledged.items():
            for stream, seq in reached.items():
                assert seq <= outbox.positions.limit(stream, epoch)

    @rule()
    def settle(self) -> None:
        """Deliver everything, then nothing may be missing."""
        for _ in range(ROUNDS):
            for one in self.running:
                self.loop.now += 20.0
                self.loop.run(one.box.tend())
                self.join(one)
                self.exchange(one)
            gaps = any(lane.gaps for lane in self.console.lanes())
            if not gaps and all(self.loop.run(self.is_done(one)) for one in self.running):
                break
        self.truth.look_anew(self.console)
        lanes = self.console.lanes()
        self.truth.check_complete(lanes, self.is_taken_for_another)
        for lane in lanes:
            never = [gap for gap in lane.gaps if not self.may_lack(lane, gap[0])]
            assert never == [], f"{lane.stream} {lane.epoch}: {never} never came"
        for one in self.running:
            self.check_box(one)
            assert self.loop.run(self.is_done(one)), self.loop.run(one.box.outbox.status())
            at = one.box.outbox.positions
            marks = {(lane.epoch, lane.stream): lane.high_water for lane in lanes}
            for epoch in (*at.final, at.epoch):
                for stream in Stream:
                    assert marks.get((epoch, stream), 0) >= at.limit(stream, epoch)

    def exchange(self, one: Running) -> None:
        """Until nothing is under way any more, as the box is connected."""
        turns = 0
        while self.network.up or self.network.down:
            turns += 1
            assert turns < 1000, "they never stop talking"
            if self.network.up:
                self.take(self._taken(0, 20, again=False))
            while self.network.down:
                self.bring(self.network.down.pop(0))
            self.loop.run(one.box.tend())

    async def is_done(self, one: Running) -> bool:
        try:
            status = await one.box.outbox.status()
            losses = await one.box.outbox.losses(1000)
        except DamagedError:
            return False  # found by this look: the next housekeeping salvages it
        waits = any(stream.pending_segments for stream in status)
        return not waits and all(told for _, told in losses) and one.box.database.damage is None
