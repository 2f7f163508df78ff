"""Virtual lines and a virtual broker: late, slow, cut, in another order, twice, and forgetful."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import aiomqtt
from paho.mqtt.properties import Properties
from tests.chaos.simulation_loop import VirtualLoop

from nexus_agent.clock import BUILT
from nexus_agent.protocol import Presence, Topic
from nexus_agent.sync.client import PUBACK_TIMEOUT_S
from nexus_agent.sync.link import WILL_DELAY_S
from nexus_agent.sync.pace import CAP_BYTES, URGENT_MESSAGES
from nexus_console.intake import Inbound

START: Final = BUILT + 100_000 * 3_600_000_000_000
"""Wall time (ns) when the loop's is 0."""
QUEUED: Final = 1000
"""Messages that the broker keeps for a box that is away, the oldest, as mosquitto does."""

Tell = Callable[..., None]
"""Notes something in the trace of the run."""


@dataclass(slots=True)
class Line:
    """Between one box and the broker. latency: seconds there at most; rate: bytes a second."""

    up: bool = True
    latency: float = 0.05
    rate: float = 1e6
    reorders: bool = False
    free: float = 0.0
    """When all that was handed over is on its way."""


class Broker:
    """Keeps messages for the console and for boxes that are away, until it forgets them."""

    def __init__(self, loop: VirtualLoop, chance: random.Random, tell: Tell) -> None:
        self.loop, self.chance, self.tell = loop, chance, tell
        self.up = True
        self.repeats = 0.0
        """How often a message is handed to the console twice, as after a lost PUBACK."""
        self.queue: deque[Inbound] = deque()
        """For the console; what it has taken stays until its PUBACK."""
        self.retained: dict[str, Inbound] = {}
        self.clients: dict[str, Client] = {}
        self.on_message: Callable[[], None] = lambda: None
        self._waiting: defaultdict[str, deque[tuple[str, bytes]]] = defaultdict(deque)

    def die(self, *, forgets: bool) -> None:
        self.up = False
        for client in list(self.clients.values()):
            client.break_off("the broker is gone")
        if forgets:
            self.queue.clear()
            self.retained.clear()
            self._waiting.clear()

    def enter(self, client: Client) -> None:
        """A box takes its session over, with all that waits in it."""
        before = self.clients.get(client.device)
        self.clients[client.device] = client
        if before is not None:
            before.break_off("the session was taken over")
            self._publish_will(before)
        waiting = self._waiting.pop(client.device, ())
        for topic, payload in waiting:
            client.bring(topic, payload)

    def leave(self, client: Client, *, cleanly: bool) -> None:
        """cleanly: it has said goodbye, and its will is void."""
        if self.clients.get(client.device) is client:
            del self.clients[client.device]
            if not cleanly:
                self.loop.call_later(WILL_DELAY_S, self._publish_will, client)

    def _publish_will(self, client: Client) -> None:
        if self.up and self.clients.get(client.device) is not client and not client.said_goodbye:
            client.said_goodbye = True
            self.take(Topic(client.device).presence, client.will.encode(), [], retain=True)

    def take(
        self, topic: str, payload: bytes, user: list[tuple[str, str]], *, retain: bool
    ) -> None:
        """A message is here; from now on the broker answers for it, as far as it does."""
        received = START + int(self.loop.time() * 1e9)
        self.tell("up", topic, zlib.crc32(payload))
        if retain:
            self.retained[topic] = Inbound(topic, payload, user, True, received, lambda: None)
        message = Inbound(topic, payload, user, False, received, lambda: None)
        self.queue.append(message)
        if self.chance.random() < self.repeats:
            self.queue.append(message)
        self.on_message()

    def send_down(self, topic: str, payload: bytes) -> bool:
        """From the console to a box; False where the broker is away."""
        if not self.up:
            return False
        self.tell("down", topic, zlib.crc32(payload))
        device = topic.split("/")[2]
        client = self.clients.get(device)
        if client is not None and client.alive:
            client.bring(topic, payload)
        else:
            self.keep(device, topic, payload)
        return True

    def keep(self, device: str, topic: str, payload: bytes) -> None:
        """For a box that is away."""
        if len(self._waiting[device]) < QUEUED:
            self._waiting[device].append((topic, payload))


@dataclass(frozen=True, slots=True)
class _Topic:
    value: str


@dataclass(frozen=True, slots=True)
class _Message:
    topic: _Topic
    payload: bytes


@dataclass(eq=False)
class Client:
    """One connection of a box, with as much of aiomqtt's client as the link and the sender use."""

    broker: Broker
    line: Line
    device: str
    will: Presence
    alive: bool = False
    said_goodbye: bool = False
    _inbox: asyncio.Queue[_Message | None] = field(default_factory=asyncio.Queue)
    _answers: dict[asyncio.Future[None], int] = field(default_factory=dict)
    _reason: str = "the session ended"

    async def __aenter__(self) -> Self:
        await self._rest()
        if not (self.line.up and self.broker.up):
            raise aiomqtt.MqttError("the broker cannot be reached")
        self.alive = True
        self.broker.enter(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.alive:
            self.said_goodbye = True
            self.end("the session ended", cleanly=True)

    def end(self, reason: str, *, cleanly: bool) -> None:
        """At once, as far as the box sees."""
        self.alive, self._reason = False, reason
        self.broker.leave(self, cleanly=cleanly)
        self._inbox.put_nowait(None)
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(aiomqtt.MqttError(reason))
                answer.exception()

    def break_off(self, reason: str) -> None:
        if self.alive:
            self.end(reason, cleanly=False)

    def vanish(self) -> None:
        """The box is gone, and nobody is left there to notice."""
        if self.alive:
            self.alive = False
            self.broker.leave(self, cleanly=False)

    async def subscribe(self, _topics: Any) -> None:
        await self._rest()
        if not self.alive:
            raise aiomqtt.MqttError(self._reason)

    @property
    async def messages(self) -> AsyncIterator[_Message]:
        while (message := await self._inbox.get()) is not None:
            yield message
        raise aiomqtt.MqttError(self._reason)

    async def publish_checked(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        if not self.alive:
            raise aiomqtt.MqttError(self._reason)
        loop, line = self.broker.loop, self.line
        user = [] if properties is None else list(properties.UserProperty)  # type: ignore[attr-defined]
        answer: asyncio.Future[None] = loop.create_future()
        self._answers[answer] = len(payload)
        # One birth may be beside what the sender has under way.
        assert len(self._answers) <= URGENT_MESSAGES + 1, "too many messages under way"
        assert sum(self._answers.values()) <= 2 * CAP_BYTES, "too many bytes under way"
        line.free = max(line.free, loop.time()) + len(payload) / line.rate
        loop.call_at(self._arrival(), self._arrive, topic, payload, user, retain, answer)
        try:
            async with asyncio.timeout(PUBACK_TIMEOUT_S):
                await answer
        except TimeoutError:
            raise aiomqtt.MqttError("the broker did not acknowledge a publish") from None
        finally:
            del self._answers[answer]

    def _arrival(self) -> float:
        late = self.broker.chance.uniform(0, self.line.latency)
        return self.line.free + (late if self.line.reorders else self.line.latency)

    def _arrive(
        self,
        topic: str,
        payload: bytes,
        user: list[tuple[str, str]],
        retain: bool,
        answer: asyncio.Future[None],
    ) -> None:
        """At the broker; its answer is on its way as long."""
        if self._reaches():
            self.broker.take(topic, payload, user, retain=retain)
            late = self.broker.chance.uniform(0, self.line.latency)
            self.broker.loop.call_later(late, self._answer, answer)

    def _answer(self, answer: asyncio.Future[None]) -> None:
        if self._reaches() and not answer.done():
            answer.set_result(None)

    def bring(self, topic: str, payload: bytes) -> None:
        """From the broker to the box."""
        late = self.broker.chance.uniform(0, self.line.latency)
        self.broker.loop.call_later(late, self._brought, _Message(_Topic(topic), payload))

    def _brought(self, message: _Message) -> None:
        if self._reaches():
            self._inbox.put_nowait(message)
        elif self.broker.up:
            # Not acknowledged to the broker: it keeps it for the next connection.
            self.broker.keep(self.device, message.topic.value, message.payload)

    def _reaches(self) -> bool:
        return self.alive and self.line.up and self.broker.up

    async def _rest(self) -> None:
        await asyncio.sleep(self.broker.chance.uniform(0, self.line.latency))
