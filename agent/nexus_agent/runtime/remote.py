"""The `Context` of a plugin in a process of its own: it asks the agent over the wire."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import orjson

from nexus_agent.bus import Listener
from nexus_agent.live import LiveSettings
from nexus_agent.plugin import (
    BusEvent,
    EmitError,
    Logger,
    Overflow,
    Settings,
    State,
    StateError,
    Stream,
    Subscription,
)
from nexus_agent.protocol import ProtocolError
from nexus_agent.protocol.catalogue import Vocabulary
from nexus_agent.protocol.catalogue.vocabulary import Declared
from nexus_agent.runtime.threads import ThreadCosts, Workers
from nexus_agent.runtime.wire import MESSAGE_BYTES, Wire

T = TypeVar("T")

BACKLOG_BYTES: Final = 4 * 1024 * 1024
"""So much may wait for the agent to read it; then a hand-over is refused."""
BATCH_EVENTS: Final = 500
PART_BYTES: Final = MESSAGE_BYTES - 4096
"""What the events of a message may take as JSON."""
LOG_CHARACTERS: Final = 4000


class RemoteContext(LiveSettings[Settings]):
    """See `nexus_agent.plugin.Context`."""

    def __init__(
        self, name: str, settings: Settings, wire: Wire, emits: Iterable[Declared]
    ) -> None:
        super().__init__(settings)
        self._vocabulary = Vocabulary(emits)
        self._wire = wire
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listeners: dict[int, Listener] = {}
        self._workers = Workers(name, ThreadCosts())
        self._handed: list[tuple[str, Any]] = []
        self._stream = Stream.TELEMETRY
        self._log = RemoteLogger(wire)
        self._state = RemoteState(self)

    # -- the agent's side --------------------------------------------------------------------

    def answered(self, message: dict[str, Any]) -> None:
        """Take an answer, or an event that was subscribed to."""
        if message["do"] == "event":
            if (listener := self._listeners.get(message["id"])) is not None:
                event = message["event"]
                listener.put(BusEvent(event[0], event[1], Stream(event[2]), event[3], event[4]))
            return
        waiting = self._waiting.pop(message["id"], None)
        if waiting is None or waiting.done():
            return
        if (error := message.get("error")) is not None:
            kind = {"emit": EmitError, "state": StateError}.get(message.get("kind", ""), EmitError)
            waiting.set_exception(kind(error))
        else:
            waiting.set_result(message.get("value"))

    def close(self) -> None:
        """The run is over."""
        self._flush()
        self._workers.close()

    async def ask(self, do: str, **fields: Any) -> Any:
        """Send a question and wait for its answer."""
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            await self._wire.send(do, id=number, **fields)
            return await future
        finally:
            self._waiting.pop(number, None)

    # -- the contract ------------------------------------------------------------------------

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
        for part in list(_parts(self._checked(events, stream))):
            self._flush()
            await self.ask("emit", events=part, stream=str(stream))

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        self.hand_over_many([(event_type, data)], stream=stream)

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        if self._wire.waiting_bytes > BACKLOG_BYTES:
            raise EmitError("the agent does not take events as fast as they come")
        for part in list(_parts(self._checked(events, stream))):
            if self._handed and (self._stream is not stream or len(self._handed) >= BATCH_EVENTS):
                self._flush()
            if not self._handed:
                asyncio.get_running_loop().call_soon(self._flush)
            self._stream = stream
            self._handed += part

    def _checked(
        self, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> Sequence[tuple[str, Any]]:
        """As the agent does it again; here the models of the plugin's own types are known."""
        try:
            return self._vocabulary.checked(events, stream)
        except ProtocolError as error:
            raise EmitError(str(error)) from None

    def _flush(self) -> None:
        """Send what was handed over since the loop's last turn, together."""
        if self._handed:
            handed, self._handed = self._handed, []
            for part in _parts(handed):
                self._wire.put("hand_over", events=part, stream=str(self._stream))

    def report(self, text: str) -> None:
        self._wire.put("report", text=text)

    def alive(self) -> None:
        self._wire.put("alive")

    @asynccontextmanager
    async def subscribe(
        self, *patterns: str, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> AsyncIterator[Subscription]:
        number = next(self._numbers)
        self._listeners[number] = Listener(patterns, overflow)
        self._wire.put("subscribe", id=number, patterns=patterns, overflow=str(overflow))
        try:
            yield self._listeners[number]
        finally:
            del self._listeners[number]
            self._wire.put("unsubscribe", id=number)

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await self._workers.run(function, *args)

    async def vehicle(self, vin: str) -> dict[str, str]:
        names: dict[str, str] = await self.ask("vehicle", vin=vin)
        return names


def _parts(events: Sequence[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
    """*events* in messages of a bounded size. Raises EmitError for what JSON cannot carry."""
    part: list[tuple[str, Any]] = []
    size = 0
    for kind, data in events:
        taken = _size(str(kind), data)
        if part and (size + taken > PART_BYTES or len(part) == BATCH_EVENTS):
            yield part
            part, size = [], 0
        part.append((str(kind), data))
        size += taken
    if part:
        yield part


def _size(kind: str, data: Any) -> int:
    try:
        text = orjson.dumps((kind, data))
        if b"null" in text:  # as orjson writes NaN and infinity, too
            json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EmitError(f"event {kind}: data is not JSON: {error}") from None
    if len(text) > PART_BYTES:
        raise EmitError(f"event {kind}: {len(text)} bytes, at most {PART_BYTES} are taken")
    return len(text) + 1


class RemoteState:
    """See `nexus_agent.plugin.State`."""

    def __init__(self, context: RemoteContext) -> None:
        self._context = context

    async def get(self, key: str) -> Any:
        return await self._context.ask("get", key=key)

    async def set(self, key: str, value: Any) -> None:
        try:
            json.dumps(value, allow_nan=False)
            orjson.dumps(value)
        except (TypeError, ValueError) as error:
            raise StateError(f"state {key}: not JSON: {error}") from None
        await self._context.ask("set", key=key, value=value)


class RemoteLogger:
    """Sends log lines to the agent, whose settings say what becomes of them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def debug(self, event: str, **fields: Any) -> None:
        self._send("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._send("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._send("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._send("error", event, fields)

    def _send(self, level: str, event: str, fields: dict[str, Any]) -> None:
        fields.pop("exc_info", None)
        words = {key: str(value)[:LOG_CHARACTERS] for key, value in fields.items()}
        self._wire.put("log", level=level, event=str(event)[:LOG_CHARACTERS], fields=words)
