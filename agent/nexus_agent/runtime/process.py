"""The process tier: a plugin in a process of its own, which cannot hurt the agent or the box.

The agent talks with it over a socket pair (`wire`), watches what it takes, and ends it. The other
side is `child`, which gives up what it may not do before the plugin's code is loaded.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import BaseModel

from nexus_agent.plugin import (
    CommandSpec,
    EmitError,
    FatalError,
    PluginError,
    Progress,
    RetryError,
)
from nexus_agent.protocol.catalogue import Vocabulary
from nexus_agent.runtime import autopsy
from nexus_agent.runtime.allowance import Allowance
from nexus_agent.runtime.context import Counters, Outlet, Services
from nexus_agent.runtime.description import Description, description_of
from nexus_agent.runtime.dialogue import Dialogue, events_of
from nexus_agent.runtime.run import STOP_S, Activity, RunError
from nexus_agent.runtime.usage import MEGABYTE, Usage
from nexus_agent.runtime.wire import Wire, WireError
from nexus_agent.sections import PluginSection

START_S: Final = 30.0
"""A process has this long to load the plugin, on the slowest box."""
PING_S: Final = 2.0
HUNG_S: Final = 10.0
"""Without an answer for so long its loop stands still."""
TURN_S: Final = 0.005
"""A process that sends without a pause is heard for so long at a time."""
_NOT_OPEN: Final = "its process was not started"
_PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOST_PROC", "HOST_CLOCK")


class ProcessRun:
    """See `nexus_agent.runtime.run.Run`. private: folders that no plugin may open."""

    def __init__(
        self,
        section: PluginSection,
        services: Services,
        counters: Counters,
        allowance: Allowance,
        private: tuple[Path, ...],
    ) -> None:
        self._section = section
        self._services = services
        self._counters = counters
        self._outlet = Outlet(section.name, services, counters, allowance, Vocabulary(()))
        self._private = private
        self._description: Description | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._wire: Wire | None = None
        self._dialogue: Dialogue | None = None
        self._verdict: Exception | None = None
        self._hangs = False
        self._cpu_before = counters.loop_s
        self.memory_bytes = 0

    # -- its life ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix=f"nexus-{self._section.name}-"))
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._clean)
            await self._start()
            undo.pop_all()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self._clean()

    async def _start(self) -> None:
        (self._folder / "tmp").mkdir(mode=0o700)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._wire = Wire(*await asyncio.open_unix_connection(sock=ours))
        with theirs, self._stderr.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "nexus_agent.runtime.child"),
                *(str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(theirs.fileno(),),
                env=self._environment(),
                cwd=self._folder / "tmp",
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_S):
                await self._wire.send("orders", **self._orders())
                message = await self._wire.receive()
        except TimeoutError:
            raise await self._death(f"it was not loaded within {START_S:g} s") from None
        except (WireError, ConnectionError) as error:
            raise await self._death(str(error)) from None
        if message is None:
            raise await self._death("")
        if message["do"] == "unusable":
            raise FatalError(str(message["text"]))
        try:
            self._description = description_of(message["description"])
            self._outlet.vocabulary = Vocabulary(self._description.emits)
        except (KeyError, TypeError, ValueError) as error:
            raise await self._death(f"it describes itself in no known way: {error}") from None

    @property
    def _stderr(self) -> Path:
        return self._folder / "stderr"

    def _environment(self) -> dict[str, str]:
        known = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        temporary = str(self._folder / "tmp")
        # An arena a thread would reserve addresses that the limits count.
        return {**known, "HOME": temporary, "TMPDIR": temporary, "MALLOC_ARENA_MAX": "2"}

    def _orders(self) -> dict[str, Any]:
        section, limits, code = self._section, self._section.limits, self._section.code
        if code is None:
            raise FatalError(f"plugin {section.name!r} is nowhere")
        folder = code.folder
        return {
            "path": [place for place in sys.path if place],
            "code": code.document(),
            "source": section.source,
            "keys": section.keys,
            "limits": {
                "memory_bytes": int(limits.memory_mb * MEGABYTE),
                "files": limits.files,
                "temporary_bytes": int(limits.temporary_mb * MEGABYTE),
            },
            "readable": [] if folder is None else [str(folder)],
            "writable": [str(self._folder / "tmp"), *granted(section.keys, self._private)],
        }

    async def _clean(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
        if self._wire is not None:
            await self._wire.close()
        if self._process is not None:
            await self._process.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def description(self) -> Description:
        if self._description is None:
            raise RunError(_NOT_OPEN)
        return self._description

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def live(self, running: Callable[[], None]) -> Activity:
        wire = self._open
        wire.put("run")
        async with asyncio.TaskGroup() as group:
            dialogue = Dialogue(self._section.name, self._services, self._outlet, wire, group)
            self._dialogue = dialogue
            watching = group.create_task(self._watch(dialogue), name=f"watch:{self._section.name}")
            try:
                await self._hear(wire, dialogue, running)
            except asyncio.CancelledError:
                await self._stop(wire)
                raise
            finally:
                self._dialogue = None
                watching.cancel()
                dialogue.close()
        return await self._ending(dialogue.ended)

    @property
    def _open(self) -> Wire:
        if self._wire is None:
            raise RunError(_NOT_OPEN)
        return self._wire

    async def _hear(self, wire: Wire, dialogue: Dialogue, running: Callable[[], None]) -> None:
        turn = time.monotonic()
        while dialogue.ended is None:
            try:
                message = await wire.receive()
                if message is None:
                    return
                if message["do"] == "running":
                    running()
                else:
                    await dialogue.take(message)
            except (WireError, KeyError, TypeError, ValueError, AttributeError) as error:
                self.interrupt(RetryError(f"its process sends what is no message: {error}"))
                return
            if time.monotonic() - turn > TURN_S:
                await asyncio.sleep(0)
                turn = time.monotonic()

    async def _stop(self, wire: Wire) -> None:
        """Ask it to end, for as long as a run has for that; then it is killed."""
        with suppress(TimeoutError, ConnectionError, WireError):
            async with asyncio.timeout(STOP_S):
                wire.put("stop")
                while (message := await wire.receive()) is not None:
                    if message["do"] == "ended":
                        return
                    if message["do"] in {"emit", "hand_over"}:
                        self._answer_late(wire, message)

    def _answer_late(self, wire: Wire, message: dict[str, Any]) -> None:
        """What it says in its last moments is passed on without a promise."""
        events, stream = events_of(message)
        try:
            self._outlet.hand_over(events, stream)
        except EmitError as error:
            text: str | None = str(error)
        else:
            text = None
        if message["do"] == "emit":
            wire.put("answer", id=message["id"], kind="emit", error=text)

    async def _ending(self, ended: Mapping[str, Any] | None) -> Activity:
        if self._verdict is not None:
            raise self._verdict
        if ended is None:
            raise await self._death("")
        kind, text = ended.get("kind"), str(ended.get("text"))
        if kind in {"done", "stopped"}:
            return Activity(kind)
        if kind == "fatal":
            raise FatalError(text)
        if kind == "retry":
            raise RetryError(text)
        raise RunError(text, str(ended.get("trace")))

    async def _death(self, why: str) -> RunError:
        """How its process ended, or has to end now, in words."""
        process = self._process
        if process is None:
            raise RunError(_NOT_OPEN)
        try:
            async with asyncio.timeout(0 if why else STOP_S):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._hangs:
            why = f"its event loop stands still for {HUNG_S:g} s"
        find = partial(autopsy.find, self._stderr, self._section.code, process.returncode or 0)
        found = await asyncio.to_thread(find, why, at_work=self._hangs)
        return RunError(found.reason, found.trace)

    def interrupt(self, error: Exception) -> None:
        if self._verdict is None:
            self._verdict = error
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    # -- what it takes -----------------------------------------------------------------------

    async def _watch(self, dialogue: Dialogue) -> None:
        """Ping it, and end it where it hangs or takes more than it may, until cancelled."""
        usage = Usage(self.pid or 0, self._folder, self._section.limits)
        while True:
            self._open.put("ping")
            await asyncio.sleep(PING_S)
            if time.monotonic() - dialogue.ponged > HUNG_S:
                self._hangs = True
                if self._process is not None:
                    with suppress(ProcessLookupError):
                        self._process.send_signal(signal.SIGABRT)  # faulthandler says where it was
                return
            excess = await asyncio.to_thread(usage.look)
            self.memory_bytes = usage.memory_bytes
            self._counters.loop_s = self._cpu_before + usage.cpu_s
            if excess is not None:
                self.interrupt(RetryError(excess))
                return

    # -- what it is asked --------------------------------------------------------------------

    async def check(self, section: PluginSection) -> str | None:
        """Why it could not run with the keys of *section*; None if it could."""
        try:
            await self._talking.ask("check", keys=section.keys)
        except PluginError as error:
            return str(error)
        return None

    async def invoke(self, spec: CommandSpec, args: BaseModel, progress: Progress) -> Any:
        return await self._talking.invoke(spec.name, args.model_dump(mode="json"), progress)

    @property
    def _talking(self) -> Dialogue:
        if self._dialogue is None:
            raise PluginError(f"plugin {self._section.name!r} is not running")
        return self._dialogue

    def become(self, section: PluginSection) -> None:
        self._section = section
        self._open.put("become", keys=section.keys)


def granted(keys: Mapping[str, Any], private: tuple[Path, ...]) -> list[str]:
    """The paths among the values of a plugin's settings: who wrote them there grants them.

    Not the agent's own places, and none above them.
    """
    found: list[str] = []
    for text in _texts(list(keys.values())):
        if not text.startswith("/"):
            continue
        path = Path(text).resolve()
        if not any(path in (own, *own.parents) or own in path.parents for own in private):
            found.append(str(path))
    return found


def _texts(value: Any) -> Iterator[str]:
    """The texts in *value*, however deep in lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
