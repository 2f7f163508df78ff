"""Sends sealed segments, most urgent stream first, until the console has acknowledged them.

For each stream a window of bytes may be under way without an acknowledgement. When none comes
within a deadline the stream goes back to the last acknowledged sequence and sends one message at a
time, ever more rarely, until the console answers: what comes twice is absorbed there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import structlog
from paho.mqtt.properties import Properties

from nexus_agent.protocol import Ack, Segment, Stream, Topic, pack
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id
from nexus_agent.sync.client import data_properties

log = structlog.get_logger("sender")

WINDOW_BYTES: Final = 1024 * 1024
MESSAGE_BYTES: Final = 128 * 1024
"""Segments are joined up to this size; a larger segment travels alone."""
MESSAGE_SEGMENTS: Final = 64
ACK_TIMEOUT_S: Final = 10.0
ACK_TIMEOUT_CAP_S: Final = 900.0


class Publisher(Protocol):
    """A connected client."""

    async def publish_checked(
        self, topic: str, payload: bytes, *, properties: Properties | None = None
    ) -> None: ...


@dataclass(slots=True)
class _Message:
    """One message under way: its last sequence, its size, and whether the broker has it."""

    last: int
    size: int
    at_broker: bool = False


@dataclass(slots=True)
class _Lane:
    """How far one stream has been sent in this session."""

    cursor: int
    moved: float
    patience: float
    """Seconds without an acknowledgement after which the stream is sent again, at first."""
    timeout: float
    limit: int = 8
    under_way: deque[_Message] = field(default_factory=deque)

    @property
    def probing(self) -> bool:
        return self.timeout > self.patience

    def has_room(self) -> bool:
        if self.probing:
            return not self.under_way
        return sum(message.size for message in self.under_way) < WINDOW_BYTES

    def deadline(self) -> float:
        return self.moved + self.timeout if self.under_way else float("inf")

    def rewind(self, acknowledged: int, now: float) -> None:
        self.cursor, self.moved = acknowledged, now
        self.under_way.clear()
        self.timeout = min(self.timeout * 2, ACK_TIMEOUT_CAP_S)

    def advance(self, acknowledged: int, now: float) -> None:
        while self.under_way and self.under_way[0].last <= acknowledged:
            self.under_way.popleft()
        self.cursor = max(self.cursor, acknowledged)
        self.moved, self.timeout = now, self.patience

    def take(self, found: list[Segment]) -> list[Segment]:
        """The segments of *found* that share the next message, and a better limit for the next."""
        chosen: list[Segment] = []
        size = 0
        for segment in found:
            if chosen and size + len(segment.payload) > MESSAGE_BYTES:
                break
            chosen.append(segment)
            size += len(segment.payload)
        if len(chosen) == len(found) == self.limit:
            self.limit = min(self.limit * 2, MESSAGE_SEGMENTS)
        elif len(chosen) * 2 < len(found):
            self.limit = max(1, self.limit // 2)
        return chosen


class Sender:
    """One `run` a session; acknowledgements come in through `acknowledge`."""

    def __init__(
        self,
        outbox: Outbox,
        topic: Topic,
        ack: Literal["console", "broker"],
        patience: float = ACK_TIMEOUT_S,
    ) -> None:
        self._outbox = outbox
        self._patience = patience
        self._topic = topic
        self._ack = ack
        self._wake = asyncio.Event()
        self._lanes: dict[Stream, _Lane] = {}
        self.retransmissions = 0
        outbox.on_sealed(lambda _: self._wake.set())

    async def acknowledge(self, ack: Ack) -> None:
        """The console has everything up to *ack*. Raises ProtocolError for an impossible one."""
        if await self._outbox.acknowledge(ack):
            acknowledged, _ = self._outbox.position(ack.stream)
            lane = self._lanes.get(ack.stream)
            if lane is not None:
                lane.advance(acknowledged, asyncio.get_running_loop().time())
            self._wake.set()

    async def run(self, publisher: Publisher) -> None:
        """Send over one session until cancelled. Raises what the publisher raises."""
        now = asyncio.get_running_loop().time()
        self._lanes = {
            stream: _Lane(self._outbox.position(stream)[0], now, self._patience, self._patience)
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
        for stream, lane in self._lanes.items():
            acknowledged, following = self._outbox.position(stream)
            if lane.deadline() <= now:
                self.retransmissions += 1
                log.info("unacknowledged", stream=str(stream), after=acknowledged)
                lane.rewind(acknowledged, now)
            if lane.cursor >= following - 1 or not lane.has_room():
                continue
            found = await self._outbox.after(
                stream, row_id(self._outbox.epoch, lane.cursor), lane.limit
            )
            if not found:
                continue
            chosen = lane.take(found)
            message = _Message(chosen[-1].last, sum(len(s.payload) for s in chosen))
            if not lane.under_way:
                lane.moved = now
            lane.under_way.append(message)
            lane.cursor = message.last
            group.create_task(
                self._publish(publisher, stream, chosen, message),
                name=f"publish:{stream}:{chosen[0].first}-{message.last}",
            )
            return True
        return False

    async def _publish(
        self, publisher: Publisher, stream: Stream, chosen: list[Segment], message: _Message
    ) -> None:
        user, payload = pack(chosen)
        await publisher.publish_checked(
            self._topic.data(stream), payload, properties=data_properties(user)
        )
        message.at_broker = True
        if self._ack == "broker":
            await self._release_at_broker(stream, chosen[0].epoch)

    async def _release_at_broker(self, stream: Stream, epoch: int) -> None:
        """With `ack = "broker"`: release the run of messages that the broker has, from the left."""
        through = 0
        for message in self._lanes[stream].under_way:
            if not message.at_broker:
                break
            through = message.last
        if through:
            await self.acknowledge(Ack(epoch=epoch, stream=stream, seq=through))

    async def _idle(self) -> None:
        deadline = min(lane.deadline() for lane in self._lanes.values())
        try:
            async with asyncio.timeout_at(None if deadline == float("inf") else deadline):
                await self._wake.wait()
        except TimeoutError:
            return
