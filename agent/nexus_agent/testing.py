"""A test double of the agent for plugin authors: run a plugin alone and look at what it emits.

    async with running(ObdPlugin(RecordingContext(settings))) as plugin: ...

What the agent refuses is refused here in the same words: data that is not JSON, event types that
are none, state beyond the quota. Data passes through JSON, as it does in the agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
import structlog

from nexus_agent.bus import Bus
from nexus_agent.live import LiveSettings
from nexus_agent.plugin import (
    BusEvent,
    EmitError,
    EventData,
    Logger,
    Overflow,
    Plugin,
    Settings,
    Stream,
    Subscription,
)
from nexus_agent.protocol import ProtocolError, Stamp, encode_events
from nexus_agent.protocol.catalogue import Vocabulary
from nexus_agent.store.state import check_quota, encode

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

THREADS: Final = 4
"""Worker threads that a plugin has (see `nexus_agent.plugin.Context.run_blocking`)."""
_NAME: Final = "plugin"
_STAMP: Final = Stamp(wall=0, mono=0, boot="test", synced=True)

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
        self._texts: dict[str, str] = {}

    async def get(self, key: str) -> Any:
        text = self._texts.get(key)
        return None if text is None else orjson.loads(text)

    async def set(self, key: str, value: Any) -> None:
        text = encode(_NAME, key, value)
        if text is None:
            self._texts.pop(key, None)
            return
        others = sum(
            len(other.encode()) + len(kept.encode())
            for other, kept in self._texts.items()
            if other != key
        )
        check_quota(_NAME, key, text, others)
        self._texts[key] = text


class RecordingContext(LiveSettings[S]):
    """A `Context` that keeps every event in `events`, and every report in `reports`.

    What it emits is heard by its own subscriptions, as in the agent; `deliver` lets them hear
    events of other plugins.
    """

    def __init__(self, settings: S, *, state: MemoryState | None = None) -> None:
        super().__init__(settings)
        self._vocabulary = Vocabulary()
        self._state = state or MemoryState()
        self._log: Logger = structlog.get_logger("plugin")
        self._bus = Bus()
        self._news = asyncio.Event()
        self._workers = asyncio.Semaphore(THREADS)
        self.events: list[Emitted] = []
        self.reports: list[str] = []
        self.alive_count = 0
        """How often the plugin has said `alive`."""

    @property
    def log(self) -> Logger:
        return self._log

    @property
    def state(self) -> MemoryState:
        return self._state

    def _take(self, events: Sequence[tuple[str, Any]], stream: Stream, *, promised: bool) -> None:
        try:
            events = self._vocabulary.checked(events, stream)
            tails = encode_events(device="box", source=_NAME, stamp=_STAMP, events=events)
        except ProtocolError as error:
            raise EmitError(str(error)) from None
        for (event_type, _), tail in zip(events, tails, strict=True):
            data = orjson.loads(b'{"id":"' + tail)["data"]
            self._keep(Emitted(event_type, data, stream, promised))
            self.deliver(BusEvent(_NAME, event_type, stream, _STAMP.wall, data))

    def _keep(self, event: Emitted) -> None:
        self.events.append(event)
        self._news.set()

    async def emit(self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT) -> None:
        await self.emit_many([(event_type, data)], stream=stream)

    async def emit_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        self._take(events, stream, promised=True)
        await asyncio.sleep(0)

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        self.hand_over_many([(event_type, data)], stream=stream)

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        self._take(events, stream, promised=False)

    def report(self, text: str) -> None:
        self.reports.append(text)

    def alive(self) -> None:
        self.alive_count += 1

    @asynccontextmanager
    async def subscribe(
        self, *patterns: str, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> AsyncIterator[Subscription]:
        with self._bus.listen(*patterns, overflow=overflow) as listener:
            yield listener

    def hold_to(self, emits: Iterable[str | type[EventData]]) -> None:
        """Refuse what is neither in the catalogue nor in *emits*, as the agent does.

        `running` calls it for the plugin that it runs.
        """
        self._vocabulary = Vocabulary(emits)

    def deliver(self, event: BusEvent) -> None:
        """Let the plugin's subscriptions hear an event of another plugin."""
        self._bus.publish(event)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        async with self._workers:
            return await asyncio.to_thread(function, *args)

    async def vehicle(self, vin: str) -> dict[str, str]:
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
    if isinstance(plugin.context, RecordingContext):
        plugin.context.hold_to(plugin.emits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(plugin.run(), name=f"plugin:{plugin.name}")
        try:
            yield task
        finally:
            task.cancel()
