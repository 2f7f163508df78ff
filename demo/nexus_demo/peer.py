"""A minimal acknowledging peer: what a console must do for a box to release its events, no more.

Tests and benchmarks put it where a console would be when the console itself is not the subject.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiomqtt

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import (
    ALL_DATA,
    ALL_PRESENCE,
    Ack,
    Command,
    CommandResult,
    Event,
    Presence,
    Segment,
    Signed,
    Stream,
    Topic,
    open_segment,
    parse_up,
    unpack,
    verify,
)
from nexus_agent.sync.client import Client

RECEIVE_MAXIMUM: Final = 1000
RESULT: Final = "command.result"


class Peer:
    """Receives, keeps and acknowledges what boxes send. `acknowledging` may be switched off."""

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._client: aiomqtt.Client | None = None
        self._news = asyncio.Event()
        self._counter = 0
        self.acknowledging = True
        self.presence: list[tuple[str, Presence]] = []
        self.marks: dict[tuple[str, int, Stream], int] = {}
        """The last sequence of each (device, epoch, stream) below which nothing is missing."""
        self.events: dict[tuple[str, int, Stream, int], Event] = {}
        self.duplicates = 0
        self.messages = 0
        self.payload_bytes = 0
        self._ahead: dict[tuple[str, int, Stream], dict[int, int]] = {}

    async def run(self, address: BrokerAddress) -> None:
        """Serve over one connection until cancelled. Raises MqttError when it is lost."""
        async with Client(
            address,
            address.tls_context(),
            identifier=f"peer-{uuid.uuid4().hex[:8]}",
            max_inflight_messages=RECEIVE_MAXIMUM,
        ) as client:
            await client.subscribe([(ALL_DATA, 1), (ALL_PRESENCE, 1)])
            self._client = client
            self._news.set()
            async for message in client.messages:
                await self._take(client, message)
                self._news.set()

    async def _take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        device, kind = parse_up(message.topic.value)
        if kind == "presence":
            self.presence.append((device, Presence.decode(message.payload)))
            return
        user = getattr(message.properties, "UserProperty", [])
        segments = unpack(kind, user, message.payload)
        self.messages += 1
        self.payload_bytes += len(message.payload)
        for segment in segments:
            self._store(device, segment)
        key = device, segments[0].epoch, kind
        if self.acknowledging and self.marks.get(key, 0):
            ack = Ack(epoch=key[1], stream=kind, seq=self.marks[key])
            await client.publish(Topic(device).ack, ack.encode(), qos=0)

    def _store(self, device: str, segment: Segment) -> None:
        key = device, segment.epoch, segment.stream
        if self._keep:
            for event in open_segment(segment):
                self.duplicates += (*key, event.seq) in self.events
                self.events[(*key, event.seq)] = event
        else:
            verify(segment)
        ahead = self._ahead.setdefault(key, {})
        ahead[segment.first] = max(segment.last, ahead.get(segment.first, 0))
        mark = self.marks.get(key, 0)
        for first in sorted(ahead):
            if first > mark + 1:
                break
            mark = max(mark, ahead.pop(first))
        self.marks[key] = mark

    async def until(self, condition: Callable[[], Any], *, within: float = 20.0) -> Any:
        """The first true value of *condition*, asked whenever something arrived."""
        async with asyncio.timeout(within):
            while not (value := condition()):
                self._news.clear()
                await self._news.wait()
        return value

    def of(self, device: str, event_type: str) -> list[Event]:
        """Every event of one type of one box, in the order of its sequences."""
        return [
            event
            for key, event in sorted(self.events.items())
            if key[0] == device and event.type == event_type
        ]

    def results(self, device: str, identity: str) -> list[CommandResult]:
        """What the box said of one command."""
        found = [CommandResult.model_validate(event.data) for event in self.of(device, RESULT)]
        return [result for result in found if result.id == identity]

    def make_command(self, device: str, name: str, args: dict[str, Any] | None = None) -> Command:
        """A command that is valid for a minute."""
        self._counter += 1
        now = datetime.now(UTC)
        return Command(
            id=str(uuid.uuid4()),
            device=device,
            counter=self._counter,
            not_before=now.isoformat(),
            expires=(now + timedelta(minutes=1)).isoformat(),
            name=name,
            args=args or {},
        )

    async def acknowledge(self, device: str, ack: Ack) -> None:
        """Say *ack*, whatever was received: it may want ranges again or order a new epoch."""
        await self.until(lambda: self._client)
        if self._client is not None:
            await self._client.publish(Topic(device).ack, ack.encode(), qos=1)

    async def send(self, command: Command) -> None:
        """Send a command down."""
        await self.until(lambda: self._client)
        if self._client is not None:
            envelope = Signed(document=command.encode().decode())
            await self._client.publish(Topic(command.device).command, envelope.encode(), qos=1)


@asynccontextmanager
async def connected(address: BrokerAddress, *, keep: bool = True) -> AsyncIterator[Peer]:
    """A peer that serves for the length of a block."""
    peer = Peer(keep=keep)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(peer.run(address), name="peer")
        try:
            await peer.until(lambda: peer._client)  # noqa: SLF001 - its own door
            yield peer
        finally:
            # Again and again: up to Python 3.11 wait_for, below aiomqtt's publish, may swallow one.
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.2)
