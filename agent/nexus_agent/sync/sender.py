"""Sends sealed segments, most urgent stream first, until the console has acknowledged them.

For each stream a window of bytes may be under way without an acknowledgement. When none comes
within a deadline the stream goes back to the last acknowledged event and sends one message at a
time, ever more rarely, until the console answers: what comes twice is absorbed there. What the
console asks for again goes last, one message at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import takewhile
from typing import Final, Literal, Protocol

import structlog
from paho.mqtt.properties import Properties

from nexus_agent.protocol import Ack, ProtocolError, Segment, Stream, Topic, pack, split
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import epoch_of, row_id, sequence
from nexus_agent.sync.client import data_properties
from nexus_agent.sync.lane import STALE_S, Lane, Message, fitting
from nexus_agent.sync.pace import Pace, Parcel
from nexus_agent.sync.traffic import Traffic
from nexus_agent.sync.wanted import Wanted, Wish

log = structlog.get_logger("sender")

ACK_TIMEOUT_S: Final = 10.0
INTRODUCE_S: Final = 30.0
"""Between two births that answer a console which knows another session, or less than before."""
LOOK_AGAIN_S: Final = 60.0
"""The end of a hold is a time of day; a clock may be set meanwhile."""
_WANTED_SEGMENTS: Final = 8


class Publisher(Protocol):
    """A connected client."""

    async def publish_checked(
        self, topic: str, payload: bytes, *, properties: Properties | None = None
    ) -> None: ...


class Sender:
    """One `run` a session; acknowledgements come in through `acknowledge`."""

    def __init__(
        self,
        outbox: Outbox,
        topic: Topic,
        ack: Literal["console", "broker"],
        patience: float = ACK_TIMEOUT_S,
        traffic: Traffic | None = None,
    ) -> None:
        self._outbox = outbox
        self._patience = patience
        self._topic = topic
        self._ack = ack
        self._traffic = traffic
        self._session = ""
        self._wake = asyncio.Event()
        self._lanes: dict[Stream, Lane] = {}
        self._pace = Pace()
        self._wanted = Wanted(patience)
        self._answering: deque[Segment] = deque()
        self._answer_under_way = False
        self._heard = self._back = self._introduced = float("-inf")
        self._look_again = float("inf")
        self.retransmissions = 0
        outbox.on_sealed(lambda _: self._wake.set())

    async def acknowledge(self, ack: Ack) -> bool:
        """The console has everything up to *ack* and may want more; whether to introduce the box.

        That is so when a new epoch began; when the console has less than it has acknowledged
        before, as one restored from a backup, which then learns what to ask for; and when it
        answers another session. Such an answer changes nothing else, for the broker has kept it,
        maybe for another disk under this name; but the console may have taken a late birth of
        another session for the present one. Raises ProtocolError for what was never sealed; then
        nothing is changed.
        """
        if ack.session is not None and ack.session != self._session:
            return self._may_introduce()
        if not self._outbox.is_open:
            return False
        self._check_wanted(ack)
        has_less = ack.seq < self._outbox.positions.reached(ack.stream, ack.epoch)
        await self._outbox.acknowledge(ack)
        now = asyncio.get_running_loop().time()
        lane = self._lanes.get(ack.stream)
        if lane is not None:
            released = self._outbox.released(ack.stream)
            lane.advance(row_id(ack.epoch, ack.seq), released, now)
        through = self._gone_past(ack.stream, ack.epoch)
        wanted = [(first, min(last, through)) for first, last in ack.want if first <= through]
        self._wanted.add(ack.stream, ack.epoch, wanted, now)
        self._hear(now)
        self._wake.set()
        if ack.renew is None or ack.epoch != self._outbox.epoch:
            return has_less and not ack.want and self._may_introduce()
        await self._outbox.renew(ack.renew, ack.above or 0)
        return True

    def _may_introduce(self) -> bool:
        """Whether to say again who this is; now and then, however many such answers come."""
        now = asyncio.get_running_loop().time()
        if now - self._introduced < INTRODUCE_S:
            return False
        self._introduced = now
        return True

    def _gone_past(self, stream: Stream, epoch: int) -> int:
        """The sequence of *epoch* up to which this session sends nothing any more by itself."""
        reached = self._outbox.positions.reached(stream, epoch)
        lane = self._lanes.get(stream)
        if lane is None or epoch_of(lane.cursor) < epoch:
            return reached
        if epoch_of(lane.cursor) > epoch:
            return self._outbox.positions.limit(stream, epoch)
        return max(reached, sequence(lane.cursor))

    def _check_wanted(self, ack: Ack) -> None:
        limit = self._outbox.positions.limit(ack.stream, ack.epoch)
        for first, last in ack.want:
            if not first <= last <= limit:
                self._outbox.refused_acknowledgements += 1
                raise ProtocolError(
                    f"acknowledgement of {ack.stream} wants {ack.epoch}/{first}-{last}: "
                    f"only {limit} were ever sealed"
                )

    def _hear(self, now: float) -> None:
        """The console answers. What it left unanswered before its silence ended, it never got."""
        if now - self._heard >= STALE_S:
            self._back = now
        self._heard = now
        for lane in self._lanes.values():
            lane.recalled |= lane.overdue(self._back, now)

    def wake(self) -> None:
        """The link policy has changed: what was held may go, or may not any more."""
        self._wake.set()

    async def run(self, publisher: Publisher, session: str) -> None:
        """Send over *session* until cancelled. Raises what the publisher raises.

        An outbox whose disk is away is waited for.
        """
        self._session = session
        await self._outbox.opened()
        self._pace = Pace()
        self._heard = self._back = float("-inf")
        self._wanted.begin()
        self._answering.clear()
        self._answer_under_way = False
        self._lanes = {
            stream: Lane(self._outbox.released(stream), self._patience, self._patience)
            for stream in Stream
        }
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                if not await self._send_next(group, publisher):
                    await self._idle()

    async def _send_next(self, group: asyncio.TaskGroup, publisher: Publisher) -> bool:
        """Send one message of the most urgent stream that has one; False if none has."""
        now = asyncio.get_running_loop().time()
        self._look_again = float("inf")
        for stream, lane in self._lanes.items():
            self._send_again(stream, lane, now)
            if not self._may_go(stream, lane):
                continue
            if chosen := await self._fetch(stream, lane):
                message = Message(
                    row_id(chosen[-1].epoch, chosen[-1].last), sum(len(s.payload) for s in chosen)
                )
                lane.under_way.append(message)
                self._launch(group, publisher, chosen, message)
                return True
        return await self._answer_wish(group, publisher)

    def _send_again(self, stream: Stream, lane: Lane, now: float) -> None:
        """Go back to what is released where an answer is overdue, or the console came back."""
        if lane.recalled or lane.deadline() <= now:
            self.retransmissions += 1
            released = self._outbox.released(stream)
            log.info("unacknowledged", stream=str(stream), after=released)
            lane.rewind(released, patient=not lane.recalled)

    def _may_go(self, stream: Stream, lane: Lane) -> bool:
        if not lane.rest and lane.cursor >= self._outbox.newest(stream):
            return False
        urgent = stream is Stream.ALERT
        return lane.has_room() and self._pace.has_room(urgent=urgent) and not self._is_held(stream)

    def _is_held(self, stream: Stream) -> bool:
        """Whether the link policy has *stream* wait; `_idle` looks again when that may end."""
        hold = self._traffic.hold(stream) if self._traffic else None
        if self._traffic is None or hold is None:
            return False
        wait = min(self._traffic.wait(hold), LOOK_AGAIN_S)
        self._look_again = min(self._look_again, asyncio.get_running_loop().time() + wait)
        return True

    async def _fetch(self, stream: Stream, lane: Lane) -> list[Segment]:
        """The segments of the next message; they count as taken."""
        if not lane.rest:
            newest = self._outbox.newest(stream)
            found = await self._outbox.after(stream, lane.cursor, lane.limit)
            if not found:
                lane.cursor = max(lane.cursor, newest)
                return []
            chosen = lane.take(found, self._pace.message_bytes)
            lane.cursor = row_id(chosen[-1].epoch, chosen[-1].last)
            self._outbox.sent(stream, lane.cursor)
            if len(chosen) > 1:
                return chosen
            lane.rest.extend(self._portions(chosen[0]))
        return [lane.rest.popleft()]

    # -- wanted again ------------------------------------------------------------------------

    async def _answer_wish(self, group: asyncio.TaskGroup, publisher: Publisher) -> bool:
        """Send one message of what the console lacks, or say that it is gone; False if neither."""
        if self._answer_under_way or not self._pace.has_room(urgent=False):
            return False
        if not self._answering:
            wish = self._wanted.first(lambda stream: not self._is_held(stream))
            if wish is None:
                return False
            try:
                self._answering.extend(await self._look_up(wish))
            except StoreError as error:
                # The console asks again for what it lacks.
                self._wanted.answer(wish, asyncio.get_running_loop().time())
                log.warning("history_not_read", stream=str(wish.stream), error=str(error))
            return True
        first = self._answering[0]
        alike = takewhile(
            lambda s: (s.stream, s.epoch) == (first.stream, first.epoch), self._answering
        )
        chosen = fitting(list(alike), self._pace.message_bytes)
        if self._is_held(chosen[0].stream):
            return False
        for _ in chosen:
            self._answering.popleft()
        self._answer_under_way = True
        self._launch(group, publisher, chosen, None)
        return True

    async def _look_up(self, wish: Wish) -> list[Segment]:
        """The first segments of what *wish* names; what the history has not is declared gone.

        The alerts that declare it go with them where their own window is full: nobody can
        acknowledge it because of the very gap that they close.
        """
        stream, epoch, first, last = wish.stream, wish.epoch, wish.first, wish.last
        span = stream, epoch, first, last, _WANTED_SEGMENTS
        # Damaged segments are dropped on the first look; sound ones may stand behind them.
        found = await self._outbox.held(*span) or await self._outbox.held(*span)
        chosen = fitting(found, self._pace.message_bytes)
        through = min(last, chosen[-1].last) if chosen else last
        gone: list[tuple[int, int]] = []
        for segment in chosen:
            if segment.first > first:
                gone.append((first, segment.first - 1))
            first = segment.last + 1
        if first <= through:
            gone.append((first, through))
        told = await self._outbox.declare_gone(stream, epoch, gone) if gone else []
        if self._lanes[Stream.ALERT].has_room():
            told = []
        now = asyncio.get_running_loop().time()
        self._wanted.answer(Wish(stream, epoch, wish.first, through), now)
        return [part for segment in [*told, *chosen] for part in self._portions(segment)]

    def _portions(self, segment: Segment) -> list[Segment]:
        """*segment*, cut where it would take so long on this line that no alert overtakes it."""
        if len(segment.payload) <= self._pace.share:
            return [segment]
        return split(segment, self._pace.share)

    # -- under way ---------------------------------------------------------------------------

    def _launch(
        self,
        group: asyncio.TaskGroup,
        publisher: Publisher,
        chosen: list[Segment],
        message: Message | None,
    ) -> None:
        """Publish *chosen* in a task of its own. message: its place in its lane, if it has one."""
        stream = chosen[0].stream
        topic = self._topic.data(stream)
        user, payload = pack(chosen, self._session)
        properties = data_properties(user)
        size = len(topic) + len(payload) + len(properties.pack())  # type: ignore[no-untyped-call]
        if self._traffic is not None:
            self._traffic.count(stream, size)
        parcel = self._pace.send(size, asyncio.get_running_loop().time())
        group.create_task(
            self._publish(publisher, topic, payload, properties, parcel, message),
            name=f"publish:{stream}:{chosen[0].first}-{chosen[-1].last}",
        )

    async def _publish(
        self,
        publisher: Publisher,
        topic: str,
        payload: bytes,
        properties: Properties,
        parcel: Parcel,
        message: Message | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            await publisher.publish_checked(topic, payload, properties=properties)
            self._pace.arrive(parcel, loop.time())
        finally:
            self._pace.end(parcel)
        if message is None:
            self._answer_under_way = False
        else:
            message.at_broker = loop.time()
            if self._ack == "broker":
                await self._release_at_broker()
        self._wake.set()

    async def _release_at_broker(self) -> None:
        """With `ack = "broker"`: release what the broker has, from the left, epoch by epoch."""
        for stream, lane in self._lanes.items():
            while edge := lane.at_broker():
                ack = Ack(epoch=epoch_of(edge), stream=stream, seq=sequence(edge))
                await self.acknowledge(ack)

    async def _idle(self) -> None:
        deadline = min(self._look_again, *(lane.deadline() for lane in self._lanes.values()))
        try:
            async with asyncio.timeout_at(None if deadline == float("inf") else deadline):
                await self._wake.wait()
        except TimeoutError:
            return
