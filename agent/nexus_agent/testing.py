"""A test double of the agent for plugin authors: run a plugin alone and look at what it emits.

    async with running(ObdPlugin(RecordingContext(settings))) as plugin: ...

Event data passes through JSON as it does in the agent, so that what cannot travel fails here too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
import structlog

from nexus_agent.plugin import BusEvent, Logger, Plugin, Settings, Stream
from nexus_agent.protocol import Stamp, encode_events

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

_STAMP = Stamp(wall=0, mono=0, boot="test", synced=True)

__all__ = ["Emitted", "MemoryState", "RecordingContext", "running"]


@dataclass(frozen=True, slots=True)
class Emitted:
    """One event as a plugin emitted it; data is what JSON makes of it."""

    type: str
    data: Any
    stream: Stream
    promised: bool
    """Whether the plugin waited for it to be durable."""


class MemoryState:
    """`Context.state` in memory; give one to two contexts in turn to test a restart."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    async def get(self, key: str) -> Any:
        raw = self._values.get(key)
        return None if raw is None else orjson.loads(raw)

    async def set(self, key: str, value: Any) -> None:
        if value is None:
            self._values.pop(key, None)
        else:
            json.dumps(value, allow_nan=False)  # refuses what the agent's state refuses
            self._values[key] = orjson.dumps(value)


class RecordingContext(Generic[S]):
    """A `Context` that keeps every event in `events`."""

    def __init__(self, settings: S, *, state: MemoryState | None = None) -> None:
        self._settings = settings
        self._state = state or MemoryState()
        self._log: Logger = structlog.get_logger("plugin")
        self._subscribers: list[tuple[tuple[str, ...], asyncio.Queue[BusEvent]]] = []
        self._news = asyncio.Event()
        self.events: list[Emitted] = []
        self.reports: list[str] = []

    @property
    def settings(self) -> S:
        return self._settings

    @property
    def log(self) -> Logger:
        return self._log

    @property
    def state(self) -> MemoryState:
        return self._state

    def _record(self, event_type: str, data: Any, stream: Stream, *, promised: bool) -> None:
        (tail,) = encode_events(
            device="box", source="plugin", stamp=_STAMP, events=[(event_type, data)]
        )
        value = orjson.loads(b'{"id":"' + tail)["data"]
        self.events.append(Emitted(event_type, value, stream, promised))
        self._news.set()

    async def emit(self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT) -> None:
        self._record(event_type, data, stream, promised=True)
        await asyncio.sleep(0)

    async def emit_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        for event_type, data in events:
            self._record(event_type, data, stream, promised=True)
        await asyncio.sleep(0)

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        self._record(event_type, data, stream, promised=False)

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        for event_type, data in events:
            self.hand_over(event_type, data, stream=stream)

    def report(self, text: str) -> None:
        self.reports.append(text)

    @asynccontextmanager
    async def subscribe(self, *event_types: str) -> AsyncIterator[AsyncIterator[BusEvent]]:
        queue: asyncio.Queue[BusEvent] = asyncio.Queue()
        entry = (event_types, queue)
        self._subscribers.append(entry)

        async def events() -> AsyncIterator[BusEvent]:
            while True:
                yield await queue.get()

        try:
            yield events()
        finally:
            self._subscribers.remove(entry)

    def deliver(self, event: BusEvent) -> None:
        """Let the plugin's subscriptions see an event of another plugin."""
        for types, queue in self._subscribers:
            if not types or event.type in types:
                queue.put_nowait(event)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(function, *args)

    def vehicle(self, vin: str) -> dict[str, str]:
        return {"vehicle_ref": f"test-{vin}", "vin": vin}

    def of(self, event_type: str) -> list[Any]:
        """The data of every event of one type, in order."""
        return [event.data for event in self.events if event.type == event_type]

    async def wait_for(self, event_type: str, count: int = 1, *, within: float = 10.0) -> list[Any]:
        """The data of events of one type, once there are *count*; TimeoutError after *within* s."""
        async with asyncio.timeout(within):
            while len(found := self.of(event_type)) < count:
                self._news.clear()
                await self._news.wait()
        return found


@asynccontextmanager
async def running(plugin: Plugin[Any]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a plugin for the length of a block, then cancel it; what it raised is raised here."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(plugin.run(), name=f"plugin:{plugin.name}")
        try:
            yield task
        finally:
            task.cancel()
