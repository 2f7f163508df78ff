"""What the agent gives a plugin: the `Context` of the contract, over the agent's real parts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.plugin import BusEvent, Logger, Settings, State, Stream

T = TypeVar("T")


class EventSink(Protocol):
    """Where events go; the outbox is one."""

    def emit(
        self, source: str, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> Awaitable[None]: ...

    def hand_over_many(
        self, source: str, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What every plugin's context stands on."""

    sink: EventSink
    bus: Bus[BusEvent]
    clock: Clock
    executor: Executor
    state_of: Callable[[str], State]
    name_vehicle: Callable[[str], dict[str, str]]


@dataclass(slots=True)
class Counters:
    """What one plugin did so far, over all of its restarts."""

    events: int = 0
    errors: int = 0
    report: str = ""


class PluginContext:
    """The `Context` of one plugin (see `nexus_agent.plugin.Context`)."""

    def __init__(
        self, name: str, settings: Settings, services: Services, counters: Counters
    ) -> None:
        self._name = name
        self._settings = settings
        self._services = services
        self._counters = counters
        self._log: Logger = structlog.get_logger("plugin").bind(plugin=name)
        self._state = services.state_of(name)

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def log(self) -> Logger:
        return self._log

    @property
    def state(self) -> State:
        return self._state

    async def emit(self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT) -> None:
        await self.emit_many([(event_type, data)], stream=stream)

    async def emit_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        if events:
            await self._services.sink.emit(self._name, events, stream)
            self._count(events, stream)

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        self.hand_over_many([(event_type, data)], stream=stream)

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        if events:
            self._services.sink.hand_over_many(self._name, events, stream)
            self._count(events, stream)

    def _count(self, events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        self._counters.events += len(events)
        now = self._services.clock.stamp().wall
        for event_type, data in events:
            self._services.bus.publish(BusEvent(self._name, event_type, stream, now, data))

    def report(self, text: str) -> None:
        self._counters.report = text

    @asynccontextmanager
    async def subscribe(self, *event_types: str) -> AsyncIterator[AsyncIterator[BusEvent]]:
        async with self._services.bus.subscribe() as subscription:

            async def wanted() -> AsyncIterator[BusEvent]:
                async for event in subscription:
                    if not event_types or event.type in event_types:
                        yield event

            yield wanted()

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._services.executor, function, *args)

    def vehicle(self, vin: str) -> dict[str, str]:
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
