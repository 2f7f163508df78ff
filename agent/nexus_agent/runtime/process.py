"""The process tier: a plugin in a process of its own, which cannot hurt the agent or the box.

The agent talks with it over a socket pair (`wire`), watches what it takes, and ends it. The other
side is `child`, which gives up what it may not do before the plugin's code is loaded.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog
from pydantic import BaseModel

from nexus_agent import traces
from nexus_agent.plugin import (
    CommandSpec,
    EmitError,
    FatalError,
    Overflow,
    PluginError,
    Progress,
    RetryError,
    StateError,
    Stream,
)
from nexus_agent.protocol.catalogue import Vocabulary
from nexus_agent.runtime.allowance import Allowance
from nexus_agent.runtime.context import Counters, Outlet, Services
from nexus_agent.runtime.description import Description, description_of
from nexus_agent.runtime.run import STOP_S, Activity, RunError
from nexus_agent.runtime.wire import Wire, WireError
from nexus_agent.sections import PluginSection
from nexus_agent.store.errors import StoreError

START_S: Final = 30.0
"""A process has this long to load the plugin, on the slowest box."""
PING_S: Final = 2.0
HUNG_S: Final = 10.0
"""Without an answer for so long its loop stands still."""
CPU_WINDOW_S: Final = 30.0
IN_FLIGHT: Final = 64
"""Questions that are under way at once; then the next message waits."""
TURN_S: Final = 0.005
"""A process that sends without a pause is heard for so long at a time."""
LOGS_S: Final = 20.0
"""Log lines a second that are passed on, with twenty times as many at once."""
STDERR_BYTES: Final = 64 * 1024
MEGABYTE: Final = 1024 * 1024
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
        self._log = structlog.get_logger("plugin").bind(plugin=section.name)
        self._logs = Allowance(LOGS_S)
        self._unlogged = 0
        self._description: Description | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._wire: Wire | None = None
        self._group: asyncio.TaskGroup | None = None
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._progress: dict[int, Progress] = {}
        self._listening: dict[int, asyncio.Task[None]] = {}
        self._number = 0
        self._ponged = 0.0
        self._ended: dict[str, Any] | None = None
        self._verdict: Exception | None = None
        self._hangs = False
        self._cpu: deque[tuple[float, float]] = deque()
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
        self._ponged = time.monotonic()
        async with asyncio.TaskGroup() as group:
            self._group = group
            watching = group.create_task(self._watch(), name=f"watch:{self._section.name}")
            try:
                await self._hear(wire, running)
            except asyncio.CancelledError:
                await self._stop(wire)
                raise
            finally:
                self._group = None
                for task in (watching, *self._listening.values()):
                    task.cancel()
                self._give_up()
        return await self._ending()

    @property
    def _open(self) -> Wire:
        if self._wire is None:
            raise RunError(_NOT_OPEN)
        return self._wire

    async def _hear(self, wire: Wire, running: Callable[[], None]) -> None:
        turn = time.monotonic()
        while self._ended is None:
            try:
                message = await wire.receive()
                if message is None:
                    return
                await self._take(message, running)
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

    def _give_up(self) -> None:
        """Nobody answers any more."""
        for future in self._answers.values():
            if not future.done():
                future.set_exception(PluginError("its process ended meanwhile"))
        self._answers.clear()

    async def _ending(self) -> Activity:
        if self._verdict is not None:
            raise self._verdict
        if self._ended is None:
            raise await self._death("")
        kind, text = self._ended.get("kind"), str(self._ended.get("text"))
        if kind in {"done", "stopped"}:
            return Activity(kind)
        if kind == "fatal":
            raise FatalError(text)
        if kind == "retry":
            raise RetryError(text)
        raise RunError(text, str(self._ended.get("trace")))

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
        dump = await asyncio.to_thread(self._last_words)
        stack, place = self._where(dump)
        code = process.returncode or 0
        if self._hangs:
            why = f"its event loop stands still for {HUNG_S:g} s{place}"
        elif not why and code < 0:
            why = f"its process was ended by {signal.Signals(-code).name}{place}"
        elif not why:
            why = f"its process left with code {code}"
        return RunError(why, "\n".join(stack) or dump[-2000:])

    def _where(self, dump: str) -> tuple[list[str], str]:
        """The stack in what faulthandler wrote, and the innermost place in the plugin's code."""
        if "Fatal Python error" not in dump or (code := self._section.code) is None:
            return [], ""
        _, stack, files = traces.read_dump(dump)
        module = code.module.replace(".", "/")
        for line, file in zip(stack[1:], files, strict=False):
            if module in file:
                return stack, f" at {line.strip()}"
        return stack, ""

    def _last_words(self) -> str:
        with suppress(OSError), self._stderr.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - STDERR_BYTES))
            text = file.read().decode("utf-8", "replace")
            at = text.find("Fatal Python error")
            return text[at:] if at >= 0 else text
        return ""

    def interrupt(self, error: Exception) -> None:
        if self._verdict is None:
            self._verdict = error
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    # -- what it takes -----------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ping it, and end it where it hangs or takes more than it may, until cancelled."""
        while True:
            self._open.put("ping")
            await asyncio.sleep(PING_S)
            if time.monotonic() - self._ponged > HUNG_S:
                self._hangs = True
                if self._process is not None:
                    with suppress(ProcessLookupError):
                        self._process.send_signal(signal.SIGABRT)  # faulthandler says where it was
                return
            if (why := await asyncio.to_thread(self._excess)) is not None:
                self.interrupt(RetryError(why))
                return

    def _excess(self) -> str | None:
        """What it takes too much of; None where all is well."""
        limits = self._section.limits
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return None
        # proc_pid_stat(5): utime, stime and rss, counted from the field behind the name
        cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        self.memory_bytes = int(stat[21]) * resource.getpagesize()
        self._counters.loop_s = self._cpu_before + cpu_s
        now = time.monotonic()
        self._cpu.append((now, cpu_s))
        while now - self._cpu[0][0] > CPU_WINDOW_S:
            since, before = self._cpu.popleft()
            share = (cpu_s - before) / (now - since) * 100
            if share > limits.cpu_percent:
                return (
                    f"it takes {share:.0f} % of a processor for {CPU_WINDOW_S:g} s; "
                    f"it may take {limits.cpu_percent:g} % (limits.cpu_percent)"
                )
        used = sum(size_of(file) for file in self._folder.rglob("*"))
        if used > limits.temporary_mb * MEGABYTE:
            return (
                f"its temporary files take {used / MEGABYTE:.0f} MB; "
                f"they may take {limits.temporary_mb:g} MB (limits.temporary_mb)"
            )
        return None

    # -- what it says ------------------------------------------------------------------------

    async def _take(self, message: dict[str, Any], running: Callable[[], None]) -> None:
        do = message["do"]
        if do == "emit":
            events, stream = events_of(message)
            await self._answering(message["id"], self._outlet.emit(events, stream))
        elif do == "hand_over":
            with suppress(EmitError):  # counted; it could not be told in time anyway
                self._outlet.hand_over(*events_of(message))
        elif do == "pong":
            self._ponged = time.monotonic()
        elif do == "running":
            running()
        elif do == "ended":
            self._ended = message
        elif do == "report":
            self._counters.report = str(message["text"])[:500]
            self._counters.alive = time.monotonic()
        elif do == "alive":
            self._counters.alive = time.monotonic()
        elif do == "log":
            self._pass_on(message)
        else:
            await self._take_question(message)

    async def _take_question(self, message: dict[str, Any]) -> None:
        do, number = message["do"], int(message["id"])
        if do in {"get", "set"}:
            state, key = self._services.state_of(self._section.name), str(message["key"])
            asked = state.get(key) if do == "get" else state.set(key, message["value"])
            await self._answering(number, asked)
        elif do == "vehicle":
            names = self._services.name_vehicle(str(message["vin"]))
            self._open.put("answer", id=number, value=names)
        elif do == "subscribe":
            patterns = tuple(map(str, message["patterns"]))
            listening = self._listen(number, patterns, Overflow(message["overflow"]))
            self._listening[number] = self._spawn(listening, f"listen:{self._section.name}")
        elif do == "unsubscribe":
            if (task := self._listening.pop(number, None)) is not None:
                task.cancel()
        elif do == "answer":
            self._answered(number, message)
        elif do == "progress":
            if (progress := self._progress.get(number)) is not None:
                progress(str(message["text"]))
        else:
            raise WireError(f"{do!r} is nothing that it may say")

    def _answered(self, number: int, message: dict[str, Any]) -> None:
        future = self._answers.get(number)
        if future is None or future.done():
            return
        if message.get("error") is not None:
            future.set_exception(PluginError(str(message["error"])))
        else:
            future.set_result(message.get("value"))

    async def _answering(self, number: int, asked: Awaitable[Any]) -> None:
        """Answer question *number* with what *asked* gives, once it does; go on meanwhile."""
        await self._turns.acquire()

        async def answer() -> None:
            try:
                value = await asked
                self._open.put("answer", id=number, value=value)
            except EmitError as error:
                self._open.put("answer", id=number, kind="emit", error=str(error))
            except (StateError, StoreError) as error:
                self._open.put("answer", id=number, kind="state", error=str(error))
            finally:
                self._turns.release()

        self._spawn(answer(), f"answer:{self._section.name}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise RunError(_NOT_OPEN)
        return self._group.create_task(work, name=name)

    async def _listen(self, number: int, patterns: tuple[str, ...], overflow: Overflow) -> None:
        with self._services.bus.listen(*patterns, overflow=overflow) as listener:
            async for event in listener:
                values = (event.source, event.type, str(event.stream), event.time, event.data)
                await self._open.send("event", id=number, event=values)

    def _pass_on(self, message: dict[str, Any]) -> None:
        if not self._logs.has(1):
            self._unlogged += 1
            return
        self._logs.take(1)
        level = message["level"] if message["level"] in {"info", "warning", "error"} else "debug"
        fields = {f"{key}": str(value) for key, value in dict(message["fields"]).items()}
        fields = {key: value for key, value in fields.items() if key not in {"event", "plugin"}}
        if self._unlogged:
            fields["suppressed"] = str(self._unlogged)
            self._unlogged = 0
        getattr(self._log, level)(str(message["event"]), **fields)

    # -- what it is asked --------------------------------------------------------------------

    async def check(self, section: PluginSection) -> str | None:
        """Why it could not run with the keys of *section*; None if it could."""
        try:
            await self._ask("check", keys=section.keys)
        except PluginError as error:
            return str(error)
        return None

    async def invoke(self, spec: CommandSpec, args: BaseModel, progress: Progress) -> Any:
        number = self._number + 1
        self._progress[number] = progress
        try:
            return await self._ask("invoke", name=spec.name, args=args.model_dump(mode="json"))
        finally:
            del self._progress[number]

    async def _ask(self, do: str, **fields: Any) -> Any:
        if self._group is None:
            raise PluginError(f"plugin {self._section.name!r} is not running")
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            await self._open.send(do, id=number, **fields)
            return await future
        finally:
            self._answers.pop(number, None)

    def become(self, section: PluginSection) -> None:
        self._section = section
        self._open.put("become", keys=section.keys)


def events_of(message: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], Stream]:
    """The events of a message, and their stream. Raises ValueError and TypeError for others."""
    events = [(str(kind), data) for kind, data in message["events"]]
    return events, Stream(message["stream"])


def granted(keys: Mapping[str, Any], private: tuple[Path, ...]) -> list[str]:
    """The paths among the values of a plugin's settings: who wrote them there grants them.

    Not the agent's own places, and none above them.
    """
    found: list[str] = []
    for value in keys.values():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text.startswith("/"):
                continue
            path = Path(text).resolve()
            if not any(path in (own, *own.parents) or own in path.parents for own in private):
                found.append(str(path))
    return found


def size_of(file: Path) -> int:
    """Its bytes; 0 once it is gone."""
    try:
        return file.lstat().st_size
    except OSError:
        return 0
