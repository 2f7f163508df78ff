"""What the box says of itself: the answers of the status socket, and its birth."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from nexus_agent import __version__
from nexus_agent.birth import birth
from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig
from nexus_agent.plugin import commands_of
from nexus_agent.protocol import (
    MAX_EPOCH,
    MAX_SEQUENCE,
    Event,
    Presence,
    Segment,
    SegmentError,
    Stream,
    format_time,
    open_segment,
)
from nexus_agent.runtime.supervisor import PluginState, Supervised, Supervisor
from nexus_agent.status.source import QueryError, UnavailableError
from nexus_agent.store import segments
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import Outbox, StorageStatus, StreamStatus
from nexus_agent.sync import forecast
from nexus_agent.sync.forecast import Forecast
from nexus_agent.sync.link import Link, LinkState
from nexus_agent.sync.policy import Hold
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Rate, Traffic

SCHEMA: Final = 1
SHOWN_LOSSES: Final = 20
"""The newest losses that `/v1/outbox` tells of."""
SCAN_SEGMENTS: Final = 50
"""Segments read at a time when looking for events that fit a question."""
_CURSOR = re.compile(r"(alert|event|telemetry|log)/([0-9]{1,6})/([0-9]{1,14})")


P = ParamSpec("P")
T = TypeVar("T")


def _readable_or_unavailable(
    answer: Callable[P, Awaitable[T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """An answer out of the database that says so where the database cannot be read."""

    @wraps(answer)
    async def answered(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await answer(*args, **kwargs)
        except StoreError as error:
            raise UnavailableError(f"the database cannot be read now: {error}") from error

    return answered


class Reporter:
    """Implements `nexus_agent.status.source.Source` over the agent's parts."""

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        database: Database,
        outbox: Outbox,
        supervisor: Supervisor,
    ) -> None:
        self._config = config
        self._clock = clock
        self._database = database
        self._outbox = outbox
        self._supervisor = supervisor
        self._started = clock.stamp()
        self._sealed: Bus[Segment] = Bus()
        self._intake = Rate(clock, bucket_s=60.0, buckets=60)
        self.link: Link | None = None
        self.sender: Sender | None = None
        self.traffic: Traffic | None = None
        self.stopping = False
        self.unopened: str | None = None
        """Why the database could not be opened yet."""
        outbox.on_sealed(self._sealed.publish)
        outbox.on_sealed(lambda segment: self._intake.add(len(segment.payload)))

    async def birth(self, session: str) -> Presence:
        """The document that is published on every connection."""
        return await birth(
            self._outbox,
            self._clock,
            session,
            interval_s=self._config.broker.presence_interval_s,
            plugins={
                item.name: str(item.state)
                for item in self._supervisor.plugins.values()
                if item.plugin is not None
            },
        )

    # -- GET /v1/status ----------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        waiting = await self._waiting()
        link = self.link
        return {
            "v": SCHEMA,
            "device": self._config.agent.id,
            "version": __version__,
            "pid": os.getpid(),
            "boot": self._clock.boot,
            "uptime_s": round((self._clock.stamp().mono - self._started.mono) / 1e9, 1),
            "state": self._state(),
            "health": self._health(),
            "broker": {
                "url": self._config.broker.url,
                "state": str(link.state) if link else str(LinkState.CONNECTING),
                "since": _time(link.since) if link else None,
                "error": (link.error or None) if link else None,
                "attempt": link.attempt if link else 0,
            },
            "outbox": {
                "pending_events": sum(s.pending_events for s in waiting),
                "pending_bytes": sum(s.pending_bytes for s in waiting),
                "oldest": _time(_oldest(waiting)),
            },
            "plugins": {name: str(p.state) for name, p in self._supervisor.plugins.items()},
        }

    async def _waiting(self) -> list[StreamStatus]:
        """What waits; nothing is known of it while the database cannot be read."""
        try:
            return await self._outbox.status()
        except StoreError:
            return []

    def _state(self) -> str:
        if self.stopping:
            return "stopping"
        return "online" if self._online() else "offline"

    def _online(self) -> bool:
        return self.link is not None and self.link.state is LinkState.CONNECTED

    def _health(self) -> list[dict[str, str]]:
        """Sentences about the box, worst first."""
        found = self._storage_health()
        for item in self._supervisor.plugins.values():
            if item.state in {PluginState.FAILED, PluginState.QUARANTINED}:
                found.append(("critical", f"Plugin {item.name} is {item.state}: {item.reason}."))
            elif item.state is PluginState.BACKOFF:
                found.append(("warning", f"Plugin {item.name} restarts: {item.reason}."))
        link = self.link
        if link is not None and link.state is LinkState.DENIED:
            found.append(("critical", f"The broker refuses this box: {link.error}."))
        elif link is not None and link.state is not LinkState.CONNECTED:
            why = f": {link.error}" if link.error else ""
            found.append(("warning", f"Not connected to {self._config.broker.url}{why}."))
        if self._outbox.refused_acknowledgements:
            count = self._outbox.refused_acknowledgements
            found.append(("warning", f"{count} impossible acknowledgements were refused."))
        if not self._clock.stamp().synced:
            found.append(("warning", "The clock is not synchronised; events say so."))
        order = {"critical": 0, "warning": 1}
        found.sort(key=lambda sentence: order[sentence[0]])
        if not found:
            found.append(("ok", "Everything works."))
        return [{"level": level, "text": text} for level, text in found]

    def _storage_health(self) -> list[tuple[str, str]]:
        """Sentences about the disk."""
        if self.unopened is not None:
            return [("critical", f"Nothing can be stored, and no plugin runs: {self.unopened}.")]
        found: list[tuple[str, str]] = []
        trouble = self._outbox.trouble
        if trouble is not None:
            lost = f" {trouble.refused} events were not taken." if trouble.refused else ""
            since = format_time(trouble.since)
            found.append(
                ("critical", f"Nothing can be stored since {since}: {trouble.reason}.{lost}")
            )
        aside = sorted(self._database.path.parent.glob("agent.db.damaged-*[0-9]"))
        if aside:
            text = f"The database was damaged and salvaged; the damaged one is {aside[-1]}"
            advice = "check the disk, and delete that file when nobody needs it"
            found.append(("warning", f"{text}: {advice}."))
        return found

    # -- GET /v1/plugins, /v1/outbox ---------------------------------------------------------

    def plugins(self) -> dict[str, Any]:
        found = [_plugin(item) for item in self._supervisor.plugins.values()]
        return {"v": SCHEMA, "plugins": found}

    @_readable_or_unavailable
    async def outbox(self) -> dict[str, Any]:
        storage = await self._outbox.storage()
        waiting = await self._outbox.status()
        sender, traffic = self.sender, self.traffic
        return {
            "v": SCHEMA,
            "epoch": self._outbox.epoch,
            "connected": self._online(),
            "database_bytes": storage.used_bytes,
            "quota_bytes": storage.quota_bytes,
            "intake_bytes_s": round(self._intake.on_average(), 1),
            "sent_bytes_s": round(traffic.rate.while_busy(), 1) if traffic else 0.0,
            "retransmissions": sender.retransmissions if sender else 0,
            "forecast": self._forecast(waiting, storage).document(),
            "traffic": traffic.document() if traffic else None,
            "streams": [
                {
                    "stream": str(s.stream),
                    "next": s.next,
                    "acknowledged": s.acknowledged,
                    "pending_events": s.pending_events,
                    "pending_segments": s.pending_segments,
                    "pending_bytes": s.pending_bytes,
                    "oldest": _time(s.oldest),
                    "held": _held(traffic.hold(s.stream)) if traffic else None,
                }
                for s in waiting
            ],
            "refused_events": storage.refused_events,
            "losses": [
                {**loss.document(), "told": told}
                for loss, told in await self._outbox.losses(SHOWN_LOSSES)
            ],
        }

    def _forecast(self, waiting: list[StreamStatus], storage: StorageStatus) -> Forecast:
        intake, traffic = self._intake.on_average(), self.traffic
        if not self._online() or traffic is None:
            return forecast.offline(storage.used_bytes, storage.quota_bytes, intake)
        sizes = {s.stream: s.pending_bytes for s in waiting}
        rate, settings = traffic.rate.while_busy(), traffic.policy.settings
        return forecast.online(sizes, settings, traffic.usage(), rate, intake)

    # -- GET /v1/events ----------------------------------------------------------------------

    @_readable_or_unavailable
    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        """See `Source.events`. A cursor is `stream/epoch/seq`, or several joined by commas: only
        the streams that it names are looked at.
        """
        streams = [stream] if stream else list(Stream)
        if after is None:
            reached = {
                one: (self._outbox.epoch, self._outbox.position(one)[1] - 1) for one in streams
            }
            pages = {one: await self._newest(one, limit, event_type) for one in streams}
            chosen = list(heapq.merge(*pages.values(), key=_by_time))[-limit:]
            # What was committed while we read is in the page or behind the cursor, not between.
            for event in chosen:
                reached[event.stream] = max(reached[event.stream], (event.epoch, event.seq))
        else:
            reached = _parse_cursor(after, streams)
            pages = {
                one: await self._behind(one, start, limit, event_type)
                for one, start in reached.items()
            }
            chosen = list(heapq.merge(*pages.values(), key=_by_time))[:limit]
            reached |= {event.stream: (event.epoch, event.seq) for event in chosen}
        following = ",".join(f"{one}/{e}/{seq}" for one, (e, seq) in reached.items())
        return {
            "v": SCHEMA,
            "events": [_document(event) for event in chosen],
            # Where the cursor names none of the streams, "" would begin all over again.
            "next": following or after,
        }

    async def _behind(
        self, stream: Stream, start: tuple[int, int], limit: int, event_type: str | None
    ) -> list[Event]:
        """The first *limit* events of one stream behind (epoch, seq) *start*, in order."""
        target = segments.row_id(start[0], start[1] + 1)
        rows = await self._database.read(segments.CONTAINING[stream], (target,))
        edge = (rows[0][0] or target) - 1
        found: list[Event] = []
        while len(found) < limit:
            rows = await self._database.read(segments.NEXT[stream], (edge, SCAN_SEGMENTS))
            for row in rows:
                found += [
                    event
                    for event in _readable(segments.from_row(stream, row))
                    if (event.epoch, event.seq) > start and event_type in {None, event.type}
                ]
            if len(rows) < SCAN_SEGMENTS:
                break
            edge = rows[-1][0]
        return found[:limit]

    async def _newest(self, stream: Stream, limit: int, event_type: str | None) -> list[Event]:
        """The last *limit* events of one stream, in order."""
        edge = segments.row_id(MAX_EPOCH + 1, 0)
        found: list[Event] = []
        while len(found) < limit:
            rows = await self._database.read(segments.BEFORE[stream], (edge, SCAN_SEGMENTS))
            for row in rows:
                page = _readable(segments.from_row(stream, row))
                found = [e for e in page if event_type in {None, e.type}] + found
                if len(found) >= limit:
                    break
            if len(rows) < SCAN_SEGMENTS:
                break
            edge = rows[-1][0]
        return found[-limit:]

    @asynccontextmanager
    async def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Events as they are committed, from now on; it ends before one would be missing."""
        async with self._sealed.subscribe() as subscription:

            async def documents() -> AsyncIterator[dict[str, Any]]:
                async for segment in subscription:
                    if subscription.dropped:
                        return
                    if stream is not None and segment.stream is not stream:
                        continue
                    for event in _readable(segment):
                        if event_type is None or event.type == event_type:
                            yield _document(event)

            yield documents()

    # -- GET /metrics ------------------------------------------------------------------------

    @_readable_or_unavailable
    async def metrics(self) -> str:
        """Prometheus text format 0.0.4."""
        lines = ["# TYPE nexus_online gauge", f"nexus_online {int(self._online())}"]
        for name, help_text, value in _OUTBOX_METRICS:
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
            lines += [
                f'{name}{{stream="{s.stream}"}} {getattr(s, value)}'
                for s in await self._outbox.status()
            ]
        lines += self._link_metrics()
        lines.append("# TYPE nexus_plugin_running gauge")
        lines += [
            f'nexus_plugin_running{{plugin="{p.name}"}} {int(p.state is PluginState.RUNNING)}'
            for p in self._supervisor.plugins.values()
        ]
        lines.append("# TYPE nexus_plugin_events_total counter")
        lines += [
            f'nexus_plugin_events_total{{plugin="{p.name}"}} {p.counters.events}'
            for p in self._supervisor.plugins.values()
        ]
        return "\n".join(lines) + "\n"

    def _link_metrics(self) -> list[str]:
        lines: list[str] = []
        if self.sender is not None:
            name = "nexus_outbox_retransmissions_total"
            lines += [
                f"# HELP {name} Times that a stream was sent again from what is acknowledged.",
                f"# TYPE {name} counter",
                f"{name} {self.sender.retransmissions}",
            ]
        if (traffic := self.traffic) is not None:
            name = "nexus_link_bytes_total"
            lines += [f"# HELP {name} Bytes of data messages sent.", f"# TYPE {name} counter"]
            lines += [f'{name}{{stream="{s}"}} {size}' for s, size in traffic.total.items()]
            name = "nexus_outbox_held"
            lines += [f"# HELP {name} Whether [link] has it wait.", f"# TYPE {name} gauge"]
            lines += [f'{name}{{stream="{s}"}} {int(traffic.hold(s) is not None)}' for s in Stream]
        return lines


_OUTBOX_METRICS: Final = (
    ("nexus_outbox_next", "Next sequence number.", "next"),
    ("nexus_outbox_acknowledged", "Last sequence number that is acknowledged.", "acknowledged"),
    ("nexus_outbox_pending_events", "Events that wait.", "pending_events"),
    ("nexus_outbox_pending_bytes", "Bytes that wait.", "pending_bytes"),
)


def _plugin(item: Supervised) -> dict[str, Any]:
    plugin = item.plugin
    return {
        "name": item.name,
        "version": plugin.version if plugin else None,
        "description": plugin.description if plugin else None,
        "state": str(item.state),
        "recoverable": item.state.recoverable,
        "since": _time(item.since or None),
        "restarts": item.restarts,
        "reason": item.reason or None,
        "last_error": item.last_error or None,
        "report": item.counters.report or None,
        "events": item.counters.events,
        "commands": [f"{item.name}.{name}" for name in commands_of(plugin)] if plugin else [],
    }


def _readable(segment: Segment) -> list[Event]:
    """The events of a segment; none of a damaged one, which the outbox's salvage deals with."""
    try:
        return open_segment(segment)
    except SegmentError:
        return []


def _document(event: Event) -> dict[str, Any]:
    return {
        "cursor": f"{event.stream}/{event.epoch}/{event.seq}",
        "epoch": event.epoch,
        "stream": str(event.stream),
        "seq": event.seq,
        "type": event.type,
        "source": event.source,
        "time": format_time(event.time),
        "synced": event.synced,
        "data": event.data,
    }


def _by_time(event: Event) -> int:
    return event.time


def _parse_cursor(text: str, streams: list[Stream]) -> dict[Stream, tuple[int, int]]:
    """Where to start in each of *streams* that the cursor names; "" is before all of them."""
    if not text:
        return dict.fromkeys(streams, (0, 0))
    found: dict[Stream, tuple[int, int]] = {}
    for part in text.split(","):
        match = _CURSOR.fullmatch(part)
        start = (int(match[2]), int(match[3])) if match else (MAX_EPOCH + 1, 0)
        if match is None or start[0] > MAX_EPOCH or start[1] > MAX_SEQUENCE:
            raise QueryError(f"after={text!r} is not a cursor, such as 'event/1/42'")
        if Stream(match[1]) in streams:
            found[Stream(match[1])] = start
    return found


def _oldest(waiting: list[StreamStatus]) -> int | None:
    """When the oldest event that waits was recorded, ns; None where none waits."""
    return min((stream.oldest for stream in waiting if stream.oldest is not None), default=None)


def _held(hold: Hold | None) -> dict[str, Any] | None:
    return None if hold is None else {"reason": hold.reason, "until": _time(hold.until)}


def _time(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else format_time(nanoseconds)
