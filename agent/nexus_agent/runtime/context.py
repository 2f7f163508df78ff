"""What the agent gives a plugin: the `Context` of the contract, over the agent's real parts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.live import LiveSettings
from nexus_agent.plugin import (
    BusEvent,
    EmitError,
    Logger,
    Overflow,
    Settings,
    State,
    Stream,
    Subscription,
)
from nexus_agent.protocol import ProtocolError
from nexus_agent.protocol.catalogue import Vocabulary
from nexus_agent.protocol.catalogue.vocabulary import Declared
from nexus_agent.runtime.allowance import Allowance
from nexus_agent.runtime.threads import ThreadCosts, Workers

T = TypeVar("T")


class EventSink(Protocol):
    """Where events go; the outbox is one. Both return the bytes that the events take as JSON."""

    def emit(
        self, source: str, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> Awaitable[int]: ...

    def hand_over_many(
        self, source: str, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What every plugin's context stands on."""

    sink: EventSink
    bus: Bus
    clock: Clock
    state_of: Callable[[str], State]
    name_vehicle: Callable[[str], dict[str, str]]

    async def emit(self, source: str, events: Sequence[tuple[str, Any]], stream: Stream) -> int:
        """Make (type, data) pairs durable and let this box's subscriptions hear them.

        Returns their bytes as JSON. Raises as `EventSink.emit`.
        """
        size = await self.sink.emit(source, events, stream)
        self.publish(source, events, stream)
        return size

    def publish(self, source: str, events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        """Let this box's subscriptions hear (type, data) pairs."""
        if self.bus.is_heard:
            now = self.clock.stamp().wall
            for event_type, data in events:
                self.bus.publish(BusEvent(source, event_type, stream, now, data))


@dataclass(slots=True)
class Counters:
    """What one plugin did so far, over all of its runs.

    bytes: of its events, as JSON; refused: events that were not taken; loop_s: its time on the
    agent's event loop, of a process of its own its CPU time; alive: monotonic time of its last
    sign of life.
    """

    events: int = 0
    bytes: int = 0
    refused: int = 0
    errors: int = 0
    stalls: int = 0
    loop_s: float = 0.0
    report: str = ""
    alive: float = 0.0
    threads: ThreadCosts = field(default_factory=ThreadCosts)


class Outlet:
    """Where the events of one plugin go through, whichever process they come from.

    vocabulary: what it may emit.
    """

    def __init__(
        self,
        name: str,
        services: Services,
        counters: Counters,
        allowance: Allowance,
        vocabulary: Vocabulary,
    ) -> None:
        self.vocabulary = vocabulary
        self._name = name
        self._services = services
        self._counters = counters
        self._allowance = allowance

    async def emit(self, events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        """As `Context.emit_many`. It waits where the plugin emits more than it may."""
        if not events:
            return
        if (wait := self._allowance.take(len(events))) > 0:
            await asyncio.sleep(wait)
        try:
            events = self.vocabulary.checked(events, stream)
            size = await self._services.emit(self._name, events, stream)
        except ProtocolError as error:
            self._counters.refused += len(events)
            raise EmitError(str(error)) from None
        except EmitError:
            self._counters.refused += len(events)
            raise
        self._count(events, size)

    def hand_over(self, events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        """As `Context.hand_over_many`."""
        if not events:
            return
        if not self._allowance.has(len(events)):
            self._counters.refused += len(events)
            raise EmitError("the plugin emits more events than it may: see `limits.events_s`")
        try:
            events = self.vocabulary.checked(events, stream)
            size = self._services.sink.hand_over_many(self._name, events, stream)
        except ProtocolError as error:
            self._counters.refused += len(events)
            raise EmitError(str(error)) from None
        except EmitError:
            self._counters.refused += len(events)
            raise
        self._allowance.take(len(events))
        self._services.publish(self._name, events, stream)
        self._count(events, size)

    def report(self, text: str) -> None:
        """As `Context.report`."""
        self._counters.report = text
        self.alive()

    def alive(self) -> None:
        """As `Context.alive`."""
        self._counters.alive = time.monotonic()

    def _count(self, events: Sequence[tuple[str, Any]], size: int) -> None:
        self._counters.events += len(events)
        self._counters.bytes += size
        self.alive()


class PluginContext(LiveSettings[Settings]):
    """The `Context` of one run of a plugin in this process (see `nexus_agent.plugin.Context`)."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        services: Services,
        counters: Counters,
        allowance: Allowance,
        emits: Iterable[Declared],
    ) -> None:
        super().__init__(settings)
        self._services = services
        self._outlet = Outlet(name, services, counters, allowance, Vocabulary(emits))
        self._workers = Workers(name, counters.threads)
        self._log: Logger = structlog.get_logger("plugin").bind(plugin=name)
        self._state = services.state_of(name)

    def close(self) -> None:
        """The run is over."""
        self._workers.close()

    @property
    def log(self) -> Logger:
        return self._log

    @property
    def state(self) -> State:
        return self._state

    async def emit(self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT) -> None:
        await self._outlet.emit([(event_type, data)], stream)

    async def emit_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        await self._outlet.emit(events, stream)

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        self._outlet.hand_over([(event_type, data)], stream)

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        self._outlet.hand_over(events, stream)

    def report(self, text: str) -> None:
        self._outlet.report(text)

    def alive(self) -> None:
        self._outlet.alive()

    @asynccontextmanager
    async def subscribe(
        self, *patterns: str, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> AsyncIterator[Subscription]:
        with self._services.bus.listen(*patterns, overflow=overflow) as listener:
            yield listener

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await self._workers.run(function, *args)

    async def vehicle(self, vin: str) -> dict[str, str]:
        return self._services.name_vehicle(vin)


class VehicleNames:
    """Names a car by a reference keyed with the shop's key, so that its VIN need not travel."""

    def __init__(self, key: bytes, *, show_vin: bool) -> None:
        self._key = key
        self.show_vin = show_vin

    def __call__(self, vin: str) -> dict[str, str]:
        digest = hmac.new(self._key, vin.encode(), hashlib.sha256).hexdigest()
        names = {"vehicle_ref": f"v-{digest[:20]}"}
        if self.show_vin:
            names["vin"] = vin
        return names
