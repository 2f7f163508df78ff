"""The far end as a process: `python -m peers.far FORM URL CA HOW`, a form for each contestant.

It takes what arrives and answers as that contestant's server must. Says `ready`, then `online
SECONDS` (CLOCK_MONOTONIC) whenever the contestant has come online. Asked on stdin: `until COUNT`,
it answers `reached COUNT SECONDS` once so many events have arrived; `numbers`, it answers with a
JSON document {"ranges": [[first, last], …], "events": all that arrived, twice or not}. HOW is
`numbers`, or `count` where events are counted and not looked into.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import aiomqtt
import orjson
import uvloop

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import (
    ALL_DATA,
    ALL_PRESENCE,
    Ack,
    Presence,
    Segment,
    Stream,
    Topic,
    parse_up,
    unpack,
    verify,
)
from nexus_agent.protocol.compression import decompress
from nexus_agent.sync.client import Client
from peers.subscriber import Subscriber

BRIDGE_STATE: Final = "bench/state"
_IN_FLIGHT: Final = 1000
_LONGEST_S: Final = 600.0
_NUMBER: Final = re.compile(rb'"n":(\d+)')


class Far(ABC):
    """What has arrived by now."""

    def __init__(self, *, numbers: bool) -> None:
        self._numbers = numbers
        self._seen: set[int] = set()
        self._events = 0
        self.news = asyncio.Event()

    @abstractmethod
    async def serve(self, address: BrokerAddress) -> None:
        """Take what arrives, for good. Says `ready` once it does."""

    @property
    def arrived(self) -> int:
        return len(self._seen) if self._numbers else self._events

    def book(self, events: int, numbers: Iterable[int]) -> None:
        """*numbers* is looked at only where numbers are wanted."""
        self._events += events
        if self._numbers:
            self._seen.update(numbers)
        self.news.set()

    def answer(self) -> str:
        found: list[list[int]] = []
        for number in sorted(self._seen):
            if found and found[-1][1] == number - 1:
                found[-1][1] = number
            else:
                found.append([number, number])
        return json.dumps({"ranges": found, "events": self._events})


class Mqtt5(Far):
    """One that is served by aiomqtt: few messages, each with many events."""

    topics: tuple[str, ...]

    @abstractmethod
    async def take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        """Take one message, and answer it."""

    async def serve(self, address: BrokerAddress) -> None:
        async with Client(
            address, address.tls_context(), identifier="far", max_inflight_messages=_IN_FLIGHT
        ) as client:
            await client.subscribe([(topic, 1) for topic in self.topics])
            _say("ready")
            async for message in client.messages:
                await self.take(client, message)


class Nexus(Mqtt5):
    """Checks and acknowledges, no more. What is above a gap waits until the gap is closed."""

    topics = (ALL_DATA, ALL_PRESENCE)

    def __init__(self, *, numbers: bool) -> None:
        super().__init__(numbers=numbers)
        self._ahead: dict[tuple[int, Stream], dict[int, int]] = {}
        self._marks: dict[tuple[int, Stream], int] = {}

    async def take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        device, kind = parse_up(message.topic.value)
        if kind == "presence":
            if Presence.decode(message.payload).online:
                _say("online", time.monotonic())
            return
        user = getattr(message.properties, "UserProperty", [])
        segments = unpack(kind, user, message.payload)
        for segment in segments:
            self._store(segment)
        key = segments[0].epoch, kind
        if self._marks[key]:
            ack = Ack(epoch=key[0], stream=kind, seq=self._marks[key])
            await client.publish(Topic(device).ack, ack.encode(), qos=0)

    def _store(self, segment: Segment) -> None:
        verify(segment)
        key = segment.epoch, segment.stream
        if segment.stream is Stream.TELEMETRY:  # the agent's own events are on the others
            self.book(segment.count, self._read(segment) if self._numbers else ())
        ahead = self._ahead.setdefault(key, {})
        ahead[segment.first] = max(segment.last, ahead.get(segment.first, 0))
        mark = self._marks.get(key, 0)
        for first in sorted(ahead):
            if first > mark + 1:
                break
            mark = max(mark, ahead.pop(first))
        self._marks[key] = mark

    def _read(self, segment: Segment) -> Iterable[int]:
        return map(int, _NUMBER.findall(decompress(segment.payload)))


class ThingsBoard(Mqtt5):
    """As much of a ThingsBoard server as the gateway waits for: it asks for its limits."""

    topics = ("v1/gateway/telemetry", "v1/devices/me/rpc/request/+")
    _LIMITS: Final = json.dumps(
        {
            "maxPayloadSize": 80_000,
            "maxInflightMessages": 100,
            "rateLimits": {},
            "gatewayRateLimits": {},
        }
    )

    async def take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        topic = message.topic.value
        if topic == self.topics[0]:
            numbers = [int(number) for number in _NUMBER.findall(message.payload)]
            self.book(len(numbers), numbers)
        elif orjson.loads(message.payload)["method"] == "getSessionLimits":
            answer = topic.replace("/request/", "/response/")
            await client.publish(answer, self._LIMITS, qos=1)
            _say("online", time.monotonic())


class Lines(Far):
    """One event a message: what comes over the bridge."""

    async def serve(self, address: BrokerAddress) -> None:
        await Subscriber(address, self._take).run(("bench/#",), lambda: _say("ready"))

    def _take(self, messages: list[tuple[bytes, bytes]]) -> None:
        events = [payload for topic, payload in messages if topic == b"bench/events"]
        if events:
            self.book(
                len(events), (int(found[1]) for found in map(_NUMBER.search, events) if found)
            )
        if (BRIDGE_STATE.encode(), b"1") in messages:
            _say("online", time.monotonic())


_FORMS: Final[dict[str, Any]] = {"nexus": Nexus, "thingsboard": ThingsBoard, "lines": Lines}


def _say(word: str, *rest: object) -> None:
    print(word, *rest, flush=True)


async def _answer(far: Far) -> None:
    """Answer what is asked on stdin; return when it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"numbers":
            _say("numbers", far.answer())
            continue
        wanted = int(line.split()[1])
        while far.arrived < wanted:
            far.news.clear()
            await far.news.wait()
        _say("reached", wanted, time.monotonic())


async def main() -> None:
    form, url, ca, how = sys.argv[1:]
    far: Far = _FORMS[form](numbers=how == "numbers")
    async with asyncio.timeout(_LONGEST_S), asyncio.TaskGroup() as group:
        serving = group.create_task(far.serve(BrokerAddress(url=url, ca=Path(ca))), name="far")
        await _answer(far)
        serving.cancel()


if __name__ == "__main__":
    uvloop.run(main())
