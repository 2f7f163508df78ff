"""The composition root: builds the agent top-down on one screen, starts it last, stops it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import structlog

from nexus_agent.aftermath import Aftermath
from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig
from nexus_agent.crashes import Crashes, Kind, place_of
from nexus_agent.manage.commands import Commander
from nexus_agent.manage.scan import Scans
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream, Topic, catalogue
from nexus_agent.reload import Reloader, live
from nexus_agent.report import Reporter
from nexus_agent.runtime.context import Services, VehicleNames
from nexus_agent.runtime.stalls import Stall, StallWatch
from nexus_agent.runtime.states import Change
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.sections import PluginSection
from nexus_agent.status.scrapes import MetricsServer
from nexus_agent.status.server import StatusServer
from nexus_agent.store.database import Database
from nexus_agent.store.errors import SchemaError, StoreError
from nexus_agent.store.housekeeping import Housekeeper, Keep
from nexus_agent.store.journal import Journal
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.space import MEGABYTE
from nexus_agent.store.state import PluginState
from nexus_agent.sync.link import Link
from nexus_agent.sync.policy import Policy
from nexus_agent.sync.sender import ACK_TIMEOUT_S, Sender
from nexus_agent.sync.traffic import Traffic
from nexus_agent.systemd import Notifier

log = structlog.get_logger("agent")

STOP_PLUGINS_S: Final = 2.5
"""Plugins get this long to give back what they hold; the whole stop takes at most 5 s."""
STOP_LINK_S: Final = 1.0
STATUS_INTERVAL_S: Final = 5.0
OPEN_RETRY_S: Final = 2.0


class AgentError(Exception):
    """The agent cannot run; the message says why and what to do."""


class Agent:
    """The whole agent; `run` is its life. Construct it inside the running event loop.

    file: where *config* was read, and is read again on SIGHUP.
    """

    def __init__(
        self, config: AgentConfig, plugins: list[PluginSection], file: Path, crashes: Crashes
    ) -> None:
        state_dir, broker = config.agent.state_dir, config.broker
        topic = Topic(config.agent.id)

        self.config = config
        self.crashes = crashes
        self.notifier = Notifier()
        self.clock = Clock()
        self.database = Database(state_dir, int(config.outbox.quota_mb * MEGABYTE))
        self.outbox = Outbox(
            self.database,
            config.agent.id,
            self.clock,
            deadline_s=config.outbox.emit_deadline_s,
        )
        self.housekeeper = Housekeeper(
            self.outbox,
            self.database,
            self.clock,
            Keep(config.history.hours, config.history.megabytes),
            config.outbox.ttl_hours,
        )
        names = VehicleNames(
            _vehicle_key(state_dir / "vehicle.key"), show_vin=config.privacy.vin == "plain"
        )
        services = Services(
            sink=self.outbox,
            bus=Bus(),
            clock=self.clock,
            state_of=lambda name: PluginState(self.database, name),
            name_vehicle=names,
        )
        self.supervisor = Supervisor(
            plugins,
            services,
            self.clock,
            self._tell_plugin_state,
            config.supervisor,
            (state_dir.resolve(), file.parent.resolve(), config.agent.socket.parent.resolve()),
        )
        places = {item.name: place_of(item.plugin) for item in plugins if item.plugin is not None}
        self.stalls = StallWatch(
            self.supervisor.meter, places, self._stalled, config.supervisor.stall_s
        )
        self.scans = Scans(
            self.supervisor,
            partial(services.emit, "agent"),
            PluginState(self.database, "agent-scans"),
        )
        self.commander = Commander(
            config.agent.id,
            self.outbox,
            Journal(self.database),
            self.scans,
            self.clock,
            frozenset(config.safety.allow),
        )
        self.reporter = Reporter(
            config, self.clock, self.database, self.outbox, self.supervisor, names
        )
        self.traffic = Traffic(self.database, self.clock, Policy(config.link))
        sender = Sender(self.outbox, topic, broker.ack, ACK_TIMEOUT_S, self.traffic)
        self.link = Link(
            broker,
            broker,
            topic,
            self.clock,
            sender,
            self.reporter.birth,
            self.commander.receive,
        )
        # What the disk refuses to keep can still be said at once: in the birth.
        self.outbox.on_trouble(lambda *_: self.link.announce())
        self.outbox.on_epoch(self.link.announce)
        self.reporter.link = self.link
        self.reporter.sender, self.reporter.traffic = sender, self.traffic
        self.aftermath = Aftermath(crashes, config.agent.upgrade_dir, self.database, self.outbox)
        self.server = StatusServer(
            config.agent.socket,
            self.reporter,
            self.reporter,
            self.scans.whole,
            strangers=self.supervisor.pids,
        )
        self.scrapes = MetricsServer(config.metrics.address, self.reporter)
        self.reloader = Reloader(
            config,
            (file, os.environ),
            self.supervisor,
            self.notifier,
            live(
                self.outbox,
                self.housekeeper,
                self.commander,
                names,
                sender,
                self.traffic,
                self.scrapes,
            ),
        )
        self.reporter.housekeeper, self.reporter.scrapes = self.housekeeper, self.scrapes
        self.reporter.reloader = self.reloader
        self.stop = asyncio.Event()
        self._up = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until a service of the agent itself dies, which raises.

        A clean stop ends the plugins, commits what they emitted, tells the console and closes.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reloader.ask)
        try:
            await self._serve()
            await self.traffic.flush()
        finally:
            await self.database.close()
        log.info("stopped")

    async def _serve(self) -> None:
        await asyncio.to_thread(self._isolate_culprits)
        with self.stalls.watching():
            await self._serve_watched()

    async def _serve_watched(self) -> None:
        async with asyncio.TaskGroup() as core:
            status = core.create_task(self.server.run(), name="status")
            await self.server.started()
            metrics = core.create_task(self.scrapes.run(), name="metrics")
            await self.scrapes.tried()
            notify = core.create_task(self._notify(), name="notify")
            link = core.create_task(self._once_up(self.link.run), name="link")
            always = [
                notify,
                core.create_task(self._once_up(self.reloader.run), name="settings"),
                metrics,
                core.create_task(self.reporter.run(), name="report"),
            ]
            if not await self._open_store():
                await self.link.farewell("stopped")
                await _cancel([status, link, *always], STOP_LINK_S)
                return
            sealing = core.create_task(self.outbox.run(), name="outbox")
            plugins = core.create_task(self.supervisor.run(), name="supervisor")
            others = [
                core.create_task(self.commander.run(), name="commands"),
                core.create_task(self.housekeeper.run(), name="housekeeping"),
                core.create_task(self.traffic.run(), name="traffic"),
                core.create_task(self.aftermath.run(), name="aftermath"),
                *always,
            ]
            log.info("ready", device=self.config.agent.id, pid=os.getpid())
            every = [sealing, status, link, plugins, *others]
            try:
                await self.stop.wait()
            except asyncio.CancelledError:
                # A service of ours died and the group ends; a stubborn plugin must not hold it up.
                self.crashes.service = next((t.get_name() for t in _dead(every)), None)
                if stuck := await _cancel(every, STOP_PLUGINS_S):
                    await self._abandon(stuck, every)
                raise

            log.info("stopping")
            self.reporter.stopping = True
            self.notifier.send(STOPPING="1", STATUS="Stopping")
            stuck = await _cancel([*others, plugins], STOP_PLUGINS_S)
            self.outbox.close()
            await sealing
            await self.outbox.remember()
            await self.link.farewell("stopped")
            stuck |= await _cancel([link, status], STOP_LINK_S)
            if stuck:
                await self._abandon(stuck, every)

    async def _open_store(self) -> bool:
        """Open the outbox, however long its disk is away; False if told to stop meanwhile.

        A box whose disk is full, read-only or broken says so at its status socket and to the
        console, and goes on by itself when the disk is back. Raises SchemaError, which only a
        person can help.
        """
        while not self.stop.is_set():
            try:
                await self.database.open()
                await self.outbox.open()
                await self.traffic.open()
            except SchemaError:
                raise
            except StoreError as error:
                if str(error) != self.reporter.unopened:
                    log.critical("cannot_store", error=str(error))
                    self.link.announce()
                self.reporter.unopened = str(error)
                self._up.set()
                await self.database.shut()
            else:
                if self.reporter.unopened is not None:
                    self.reporter.unopened = None
                    self.link.announce()
                self._up.set()
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(OPEN_RETRY_S):
                    await self.stop.wait()
        return False

    async def _once_up(self, service: Callable[[], Awaitable[None]]) -> None:
        """From when it is known whether the outbox can be opened: the birth tells, and READY."""
        await self._up.wait()
        await service()

    async def _abandon(
        self, stuck: set[asyncio.Task[None]], every: list[asyncio.Task[None]]
    ) -> NoReturn:
        """End the process over tasks that ignore their cancellation; nothing durable is open."""
        dead = _dead(every)
        for task, error in dead.items():
            log.error("service_died", service=task.get_name(), exc_info=error)
            self.crashes.died(error)
        names = [p.name for p in self.supervisor.plugins.values() if p.run is not None]
        log.error("stopped_the_hard_way", tasks=sorted(t.get_name() for t in stuck), plugins=names)
        await self.database.close()
        self.crashes.ended()
        logging.shutdown()
        os._exit(1 if dead else 0)

    async def _tell_plugin_state(self, change: Change) -> None:
        data = catalogue.box.PluginState(
            plugin=change.plugin,
            state=change.state,
            recoverable=change.state.recoverable,
            reason=change.reason or None,
            isolation=change.isolation,
        )
        stream = Stream.ALERT if change.alarming else Stream.EVENT
        try:
            await self.outbox.emit("agent", [(data.type, data.document())], stream)
        except EmitError as error:
            log.warning("plugin_state_untold", plugin=change.plugin, error=str(error))

    def _stalled(self, stall: Stall) -> None:
        self.reporter.stalls += 1
        self.supervisor.stalled(stall)

    def _isolate_culprits(self) -> None:
        """A plugin whose code ended the process before this one goes on in one of its own."""
        for item in self.crashes.untold():
            if item.report.plugin is not None and item.report.kind is Kind.SIGNAL:
                why = f"it ended the agent: {item.report.reason}"
                self.supervisor.move(item.report.plugin, why)

    async def _notify(self) -> None:
        """READY once, then STATUS, and WATCHDOG for as long as this loop turns.

        Ready is also who waits for a disk: to be killed for it would not bring the disk back.
        """
        await self._up.wait()
        self.notifier.send(READY="1", STATUS="Ready")
        interval = min(self.notifier.watchdog_interval or STATUS_INTERVAL_S, STATUS_INTERVAL_S)
        while True:
            status = self.reporter.unopened or f"Broker: {self.link.state}"
            self.notifier.send(WATCHDOG="1", STATUS=status)
            await asyncio.sleep(interval)


def _dead(tasks: list[asyncio.Task[None]]) -> dict[asyncio.Task[None], BaseException]:
    """Those of *tasks* that an error has ended, with it."""
    ended = [task for task in tasks if task.done() and not task.cancelled()]
    return {task: error for task in ended if (error := task.exception()) is not None}


async def _cancel(tasks: list[asyncio.Task[None]], within: float) -> set[asyncio.Task[None]]:
    """Cancel *tasks*; those that have not ended *within* seconds."""
    for task in tasks:
        task.cancel()
    _, stuck = await asyncio.wait(tasks, timeout=within)
    return stuck


@contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Hold the state folder's lock: two agents on one outbox would number events twice."""
    try:
        if not state_dir.is_dir():
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
        # The folder itself is locked: a lock file could not be made on a full or read-only disk.
        descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AgentError(f"{state_dir}: cannot be used as state_dir: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AgentError(f"{state_dir}: another agent runs on this state_dir") from None
        yield
    finally:
        os.close(descriptor)


def _vehicle_key(path: Path) -> bytes:
    """The key that names cars; made on the first start. Give all boxes of a shop the same file."""
    try:
        key = path.read_bytes() if path.exists() else _new_key(path)
    except OSError as error:
        raise AgentError(f"{path}: cannot be used as vehicle key: {error.strerror}") from None
    if len(key) < 32:
        raise AgentError(f"{path}: holds {len(key)} bytes, a vehicle key has at least 32")
    return key


def _new_key(path: Path) -> bytes:
    key = secrets.token_hex(32).encode()
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
