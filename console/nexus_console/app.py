"""The composition root: builds the console top-down on one screen and starts it last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from nexus_agent.settings import SettingsError
from nexus_agent.systemd import Notifier
from nexus_console.api import create_api
from nexus_console.api.access import Services
from nexus_console.api.health import health_of
from nexus_console.auth import Accounts, Attempts
from nexus_console.config import ConsoleSettings, ServerSettings
from nexus_console.db.engine import Database, reason
from nexus_console.dispatch import Dispatcher
from nexus_console.ingest import Inbox, Writer
from nexus_console.keeper import Keeper
from nexus_console.live import Change, Live
from nexus_console.mqtt import Link

STOP_HTTP_S: Final = 2
"""How long requests that are under way may take at the end."""
STATUS_PERIOD_S: Final = 2.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def run(settings: ConsoleSettings, *, stop: asyncio.Event | None = None) -> None:
    """Run the console until SIGTERM, SIGINT or *stop*.

    Raises SettingsError where it cannot start with *settings*; anything that a part of it did not
    expect ends the whole with that exception.
    """
    stop = stop or asyncio.Event()
    notifier = Notifier()
    tls = settings.broker.tls_context()
    database = open_database(settings)
    listener = _listen(settings.server)
    inbox = Inbox()
    link = Link(settings.broker, tls, inbox)
    live = Live()
    dispatcher = Dispatcher(database, link)
    keeper = Keeper(database, settings.retention, busy=lambda: len(inbox) > 0, tell=live.tell)

    def tell(changes: set[Change]) -> None:
        live.tell(changes)
        keeper.heed(changes)

    writer = Writer(database, inbox, publish=link.publish, came_up=dispatcher.came_up, tell=tell)
    services = Services(
        database=database,
        accounts=Accounts(database),
        attempts=Attempts(),
        link=link,
        writer=writer,
        dispatcher=dispatcher,
        live=live,
        retention=settings.retention,
    )
    server = _Server(create_api(services), settings.server)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threads = ThreadPoolExecutor(3, thread_name_prefix="console")
    try:
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(_thread(threads, writer.run, writer.stop), name="writer"),
                group.create_task(_thread(threads, link.run, link.stop), name="link"),
                group.create_task(_thread(threads, keeper.run, keeper.stop), name="keeper"),
                group.create_task(dispatcher.run(), name="dispatcher"),
                group.create_task(_report(notifier, services), name="status"),
                group.create_task(_beat(notifier), name="watchdog"),
            ]
            serving = group.create_task(server.serve(sockets=[listener]), name="http")
            await server.up.wait()
            host, port = listener.getsockname()[:2]
            _log.info("console is up", address=f"http://{host}:{port}")
            notifier.send(READY="1", STATUS=f"listening on {host}:{port}")
            await stop.wait()
            notifier.send(STOPPING="1", STATUS="stopping")
            live.close()
            server.should_exit = True
            await serving
            # The writer first: what it has committed is still acknowledged over the link.
            for task in work:
                task.cancel()
                await asyncio.wait([task])
    finally:
        writer.stop()
        link.stop()
        keeper.stop()
        threads.shutdown()
        listener.close()
        database.close()
        _log.info("console has stopped", events=writer.totals.events)


def open_database(settings: ConsoleSettings) -> Database:
    """The database with its schema at the head. Raises SettingsError where it cannot be used."""
    try:
        database = Database(settings.database.url)
        database.prepare()
    except (SQLAlchemyError, ImportError) as error:
        text = reason(error) if isinstance(error, SQLAlchemyError) else str(error)
        raise SettingsError(f"database.url: cannot be used: {text}") from None
    return database


def _listen(settings: ServerSettings) -> socket.socket:
    host, port = settings.address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        # create_server appends the address to the system's text, which is said here already.
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise SettingsError(f"server.listen: {settings.listen}: cannot listen: {text}") from None


async def _thread(
    threads: ThreadPoolExecutor, work: Callable[[], None], stop: Callable[[], None]
) -> None:
    """Own *work* on a thread: its exception is this task's, and a cancel waits for its end."""
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([future])
        future.result()
        raise


async def _report(notifier: Notifier, services: Services) -> None:
    """Tell the service manager how things are."""
    while True:
        await asyncio.sleep(STATUS_PERIOD_S)
        health = await asyncio.to_thread(health_of, services)
        notifier.send(STATUS=f"broker {health.broker}, database {health.database}")


async def _beat(notifier: Notifier) -> None:
    """Tell the service manager that the loop turns, however long a database takes to answer."""
    while notifier.watchdog_interval is not None:
        notifier.send(WATCHDOG="1")
        await asyncio.sleep(notifier.watchdog_interval)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: `run` has its own."""

    def __init__(self, api: FastAPI, settings: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=settings.behind_proxy,
                forwarded_allow_ips="127.0.0.1,::1",
                timeout_graceful_shutdown=STOP_HTTP_S,
            )
        )
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()
