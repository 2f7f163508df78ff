"""`nexus plugin run`: a plugin alone, its events on stdout, without agent, broker and console."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import orjson
import structlog

from nexus_agent import logs
from nexus_agent.plugin import Plugin, PluginError, Settings
from nexus_agent.testing import Emitted, RecordingContext
from nexus_agent.workbench.subject import Subject

END_S: Final = 5.0
"""Seconds that a cancelled plugin has to end (see `Plugin.run`)."""
_WORKER: Final = "worker"

Write = Callable[[str], None]
GiveUp = Callable[[str], NoReturn]


class SoloError(Exception):
    """The plugin failed; the message is for its author."""


class SoloContext(RecordingContext[Settings]):
    """Writes every event as a JSON line; reports go to stderr. State is kept in memory only."""

    def __init__(self, name: str, settings: Settings, write: Write, *, once: bool) -> None:
        super().__init__(settings)
        self._log = structlog.get_logger("plugin").bind(plugin=name)
        self._write = write
        self._once = once
        self._reported = ""
        self.enough = asyncio.Event()
        """Set by the first event, where one was asked for, and when nobody reads any more."""

    def _keep(self, event: Emitted) -> None:
        if self.enough.is_set():
            return
        line = {"type": event.type, "stream": event.stream, "data": event.data}
        try:
            self._write(orjson.dumps(line).decode())
        except BrokenPipeError:
            self.enough.set()
        if self._once:
            self.enough.set()

    def report(self, text: str) -> None:
        if text != self._reported:
            self._reported = text
            self._log.info("report", text=text)


def run(
    subject: Subject,
    settings: Settings,
    write: Write,
    give_up: GiveUp,
    *,
    once: bool,
    for_s: float | None,
) -> None:
    """Run the plugin until it ends, an event or the time has come, or Ctrl-C (KeyboardInterrupt).

    Log lines go to stderr. Raises SoloError where the plugin fails. give_up is called where it
    does not end: only `os._exit` leaves then, everything else would wait for it.
    """
    logs.configure(logs.LogSettings(level="debug", format="console"))
    logging.getLogger("asyncio").setLevel(logging.INFO)
    context = SoloContext(subject.plugin.name, settings, write, once=once)
    try:
        asyncio.run(_run(subject, context, give_up, for_s))
    except SystemExit as error:
        raise SoloError(f"it raised SystemExit, at {subject.place_of_error(error)}") from error


async def _run(
    subject: Subject, context: SoloContext, give_up: GiveUp, for_s: float | None
) -> None:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix=_WORKER)
    loop.set_default_executor(executor)
    try:
        plugin: Plugin[Any] = subject.plugin(context)
    except Exception as error:
        raise _failure(subject, error) from error
    work = loop.create_task(plugin.run(), name=f"plugin:{plugin.name}")
    enough = loop.create_task(context.enough.wait(), name="enough")
    try:
        await asyncio.wait([work, enough], timeout=for_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        enough.cancel()
        work.cancel()
        await asyncio.wait([work, enough], timeout=END_S)
        executor.shutdown(wait=False, cancel_futures=True)
        if (stuck := await _stuck(subject, work)) is not None:
            give_up(stuck)
    if not work.cancelled() and (failure := work.exception()) is not None:
        raise _failure(subject, failure) from failure


async def _stuck(subject: Subject, work: asyncio.Task[None]) -> str | None:
    """What does not end, in words; None as soon as nothing of the plugin runs."""
    if not work.done():
        place = subject.place_of_wait(work.get_coro())
        return f"it does not end within {END_S:g} s of being cancelled, at {place}"
    deadline = time.monotonic() + END_S
    while any(thread.name.startswith(_WORKER) for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return "a call by run_blocking does not return: give it a timeout"
        await asyncio.sleep(0.01)
    return None


def _failure(subject: Subject, error: BaseException) -> SoloError:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, PluginError):
        return SoloError(text)
    return SoloError(f"{text}, at {subject.place_of_error(error)}")
