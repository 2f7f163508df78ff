"""What the box says of itself: the answers of the status socket, and its birth."""

from __future__ import annotations

import os
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
)
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import asdict
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

import structlog

from nexus_agent import __version__, health, metrics
from nexus_agent.birth import birth, introduction
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig
from nexus_agent.health import LEVELS, WAITS, Findings, Problem, Since
from nexus_agent.plugin import PluginError
from nexus_agent.protocol import Presence, Stream, format_time
from nexus_agent.reload import Reloader
from nexus_agent.runtime.states import Supervised
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.status.history import History
from nexus_agent.status.scrapes import MetricsServer
from nexus_agent.status.source import SCHEMA, PluginAction, QueryError, UnavailableError
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.housekeeping import Housekeeper
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.standing import StorageStatus, StreamStatus
from nexus_agent.sync import forecast
from nexus_agent.sync.forecast import Forecast
from nexus_agent.sync.link import Link, LinkState
from nexus_agent.sync.policy import Hold
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Rate, Traffic
from nexus_agent.vitals import Lag

SHOWN_LOSSES: Final = 20
"""The newest losses that `/v1/outbox` tells of."""

VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
"""ISO 3779 section 4"""

log = structlog.get_logger("report")

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
        name_vehicle: Callable[[str], dict[str, str]],
    ) -> None:
        self._config = config
        self._name_vehicle = name_vehicle
        self._clock = clock
        self._database = database
        self._outbox = outbox
        self._supervisor = supervisor
        self._started = clock.stamp()
        self._since = Since(clock)
        self._lag = Lag()
        self._history = History(database, outbox)
        self._intake = Rate(clock, bucket_s=60.0, buckets=60)
        self.link: Link | None = None
        self.sender: Sender | None = None
        self.traffic: Traffic | None = None
        self.housekeeper: Housekeeper | None = None
        self.scrapes: MetricsServer | None = None
        self.reloader: Reloader | None = None
        self.stopping = False
        self.stalls = 0
        """How often the event loop stood still."""
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
                if item.is_wanted
            },
        )

    # -- GET /v1/status ----------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        waiting = await self._waiting()
        link, findings = self.link, self._findings()
        return {
            "v": SCHEMA,
            "device": self._config.agent.id,
            "version": __version__,
            "pid": os.getpid(),
            "boot": self._clock.boot,
            "uptime_s": round((self._clock.stamp().mono - self._started.mono) / 1e9, 1),
            "state": self._state(),
            "health": [
                {"level": problem.level, "text": problem.text}
                for problem in self._problems(findings)
            ]
            or [{"level": "ok", "text": "Everything works."}],
            "services": self._since.document(findings),
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

    # -- health ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Measure the event loop, and note when a service falls ill, until cancelled."""
        await self._lag.run(lambda: self._since.look(self._findings()))

    def _findings(self) -> Findings:
        """What is wrong with each service of the agent."""
        found = {
            "status": [],
            "outbox": health.of_outbox(self._outbox, self.unopened),
            "link": health.of_link(self.link, self._config.broker.url),
            "supervisor": health.of_plugins(self._supervisor),
            "commands": [],
            "housekeeping": health.of_housekeeping(self.housekeeper, self._outbox),
            "metrics": health.of_metrics(self.scrapes),
            "settings": health.of_settings(self.reloader),
        }
        if self.unopened is not None:
            for name in ("supervisor", "commands", "housekeeping"):
                found[name] = [WAITS]
        return found

    def _problems(self, findings: Findings) -> list[Problem]:
        """All that a person should know of, the worst first."""
        found = [each for problems in findings.values() for each in problems if each is not WAITS]
        found += health.of_damage(self._database.path)
        if count := self._outbox.refused_acknowledgements:
            text = f"{count} impossible acknowledgements were refused."
            found.append(Problem("warning", text))
        if not self._clock.stamp().synced:
            found.append(Problem("warning", "The clock is not synchronised; events say so."))
        return sorted(found, key=lambda problem: LEVELS.index(problem.level))

    # -- GET /v1/plugins, /v1/outbox ---------------------------------------------------------

    def plugins(self) -> dict[str, Any]:
        found = [_plugin(item) for item in self._supervisor.plugins.values()]
        return {"v": SCHEMA, "plugins": found}

    async def change_plugin(self, name: str, action: PluginAction, by: str) -> dict[str, Any]:
        try:
            match action:
                case PluginAction.START:
                    self._supervisor.start(name)
                case PluginAction.STOP:
                    self._supervisor.stop(name, by)
                case PluginAction.RESTART:
                    self._supervisor.restart(name)
                case PluginAction.ENABLE | PluginAction.DISABLE:
                    await self._supervisor.switch(name, on=action is PluginAction.ENABLE)
        except PluginError as error:
            raise QueryError(str(error)) from None
        return {"v": SCHEMA, "plugin": _plugin(self._supervisor.plugins[name])}

    async def erase(self, vin: str, by: str) -> AsyncGenerator[dict[str, Any], None]:
        if self.housekeeper is None or not self._outbox.is_open:
            raise UnavailableError("the database cannot be read now")
        if not VIN.fullmatch(vin):
            raise QueryError("a VIN has 17 letters and digits, without I, O and Q")
        marks = (self._name_vehicle(vin)["vehicle_ref"], vin)
        try:
            async with aclosing(self.housekeeper.erasure.erase(marks)) as steps:
                async for found in steps:
                    yield {"v": SCHEMA, "done": False, **asdict(found)}
        except StoreError as error:
            raise UnavailableError(f"the database cannot be changed now: {error}") from error
        log.info("vehicle_erased", by=by, events=found.events, waiting=found.waiting)
        yield {"v": SCHEMA, "done": True, **asdict(found)}

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

    async def metrics(self) -> str:
        """What cannot be read at the moment is left out: `nexus_service_ok` says that it is so."""
        now, findings = self._clock.stamp(), self._findings()
        samples = [
            *metrics.of_agent(
                __version__,
                (now.mono - self._started.mono) / 1e9,
                ready=self._outbox.is_open and not self.stopping,
                synced=now.synced,
            ),
            *metrics.of_link(self.link, self.sender, self.traffic),
            *metrics.of_plugins(self._supervisor),
            *metrics.of_process(self._lag),
            *await metrics.of_storage(self._outbox),
            *metrics.of_health(findings, self._problems(findings)),
        ]
        with suppress(StoreError):
            samples += await metrics.of_streams(self._outbox, now.wall)
        return metrics.render(samples)


def _plugin(item: Supervised) -> dict[str, Any]:
    said, counters, run = item.description, item.counters, item.run
    return {
        "name": item.name,
        "version": said.version if said else None,
        "description": said.description if said else None,
        "isolation": str(item.isolation),
        "moved": item.moved or None,
        "pid": run.pid if run else None,
        "state": str(item.state),
        "recoverable": item.state.recoverable,
        "since": _time(item.since or None),
        "restarts": item.restarts,
        "reason": item.reason or None,
        "last_error": item.last_error or None,
        "report": counters.report or None,
        "events": counters.events,
        "event_bytes": counters.bytes,
        "refused_events": counters.refused,
        "errors": counters.errors,
        "stalls": counters.stalls,
        "loop_s": round(counters.loop_s, 3),
        "threads": {
            "busy": counters.threads.busy,
            "calls": counters.threads.calls,
            "seconds": round(counters.threads.seconds, 3),
        },
        "commands": [f"{item.name}.{name}" for name in said.commands] if said else [],
        "emits": list(said.emits) if said else [],
        "opens": _opened(item),
        "requires": list(said.requires) if said else [],
        "settings_schema": said.settings if said else None,
    }


def _opened(item: Supervised) -> list[str]:
    """What the settings have it open."""
    said = item.description
    return list(_named(item.section.keys, said.devices)) if said else []


def _named(keys: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """The values of the keys called *names*, in the tables among *keys* too."""
    for key, value in keys.items():
        if isinstance(value, dict):
            yield from _named(value, names)
        elif key in names:
            yield str(value)


def _oldest(waiting: list[StreamStatus]) -> int | None:
    """When the oldest event that waits was recorded, ns; None where none waits."""
    return min((stream.oldest for stream in waiting if stream.oldest is not None), default=None)


def _held(hold: Hold | None) -> dict[str, Any] | None:
    return None if hold is None else {"reason": hold.reason, "until": _time(hold.until)}


def _time(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else format_time(nanoseconds)
