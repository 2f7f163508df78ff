"""What the box says of itself: the answers of the status socket, and its birth."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from nexus_agent import __version__
from nexus_agent.birth import birth, introduction
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig
from nexus_agent.metrics import prometheus
from nexus_agent.plugin import commands_of
from nexus_agent.protocol import Presence, Stream, format_time
from nexus_agent.runtime.supervisor import PluginState, Supervised, Supervisor
from nexus_agent.status.history import History
from nexus_agent.status.source import SCHEMA, UnavailableError
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import Outbox, StorageStatus, StreamStatus
from nexus_agent.sync import forecast
from nexus_agent.sync.forecast import Forecast
from nexus_agent.sync.link import Link, LinkState
from nexus_agent.sync.policy import Hold
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Rate, Traffic

SHOWN_LOSSES: Final = 20
"""The newest losses that `/v1/outbox` tells of."""

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
        self._history = History(database, outbox)
        self._intake = Rate(clock, bucket_s=60.0, buckets=60)
        self.link: Link | None = None
        self.sender: Sender | None = None
        self.traffic: Traffic | None = None
        self.stopping = False
        self.unopened: str | None = None
        """Why the database could not be opened yet."""
        outbox.on_sealed(lambda segment: self._intake.add(len(segment.payload)))

    async def birth(self, session: str) -> Presence:
        """The document that is published on every connection."""
        if self.unopened is not None:
            interval_s = self._config.broker.presence_interval_s
            return introduction(self._clock, session, interval_s, self.unopened)
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

    # -- GET /v1/events, /metrics ------------------------------------------------------------

    @_readable_or_unavailable
    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        return await self._history.events(
            after=after, limit=limit, event_type=event_type, stream=stream
        )

    def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        return self._history.follow(event_type=event_type, stream=stream)

    @_readable_or_unavailable
    async def metrics(self) -> str:
        return await prometheus(
            self._outbox, self._supervisor, self.sender, self.traffic, online=self._online()
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


def _oldest(waiting: list[StreamStatus]) -> int | None:
    """When the oldest event that waits was recorded, ns; None where none waits."""
    return min((stream.oldest for stream in waiting if stream.oldest is not None), default=None)


def _held(hold: Hold | None) -> dict[str, Any] | None:
    return None if hold is None else {"reason": hold.reason, "until": _time(hold.until)}


def _time(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else format_time(nanoseconds)
