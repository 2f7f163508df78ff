"""Whatever a plugin can do wrong, one deed at a time."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from nexus_agent.plugin import (
    EmitError,
    FatalError,
    NoArgs,
    Plugin,
    Progress,
    RetryError,
    Settings,
    StateError,
    Stream,
    command,
)

LEAK_BYTES: Final = 1_000_000_000
FILES: Final = 10_000


class HostileSettings(Settings):
    """deed: what to do. after_s: how long to behave before that. path: what to open.

    count: how many events are a flood.
    """

    deed: str
    after_s: float = 0.0
    path: str = ""
    count: int = 1_000_000


class Hostile(Plugin[HostileSettings]):
    """Emits `hostile.begun` and does its deed."""

    name = "hostile"
    version = "1.0"
    description = "Does wrong."
    author = "tests"
    emits: ClassVar[tuple[str, ...]] = ("hostile.begun", "hostile.done", "hostile.flood")
    settings_model = HostileSettings
    devices: ClassVar[tuple[str, ...]] = ("path",)

    async def run(self) -> None:
        await self.context.emit("hostile.begun", os.getpid())
        await asyncio.sleep(self.context.settings.after_s)
        deeds: dict[str, Callable[[], Awaitable[object]]] = {
            "raise": self._raise,
            "return": self._return,
            "fatal": self._fatal,
            "group": self._group,
            "retry": self._retry,
            "exit": self._exit,
            "block": self._block,
            "stutter": self._stutter,
            "spin": self._spin,
            "busy": self._busy,
            "leak": self._leak,
            "fork": self._fork,
            "files": self._files,
            "flood": self._flood,
            "ignore": self._ignore,
            "segfault": self._segfault,
            "die": self._die,
            "quota": self._quota,
            "garbage": self._garbage,
            "temporary": self._temporary,
            "peek": self._peek,
            "kill": self._kill,
            "threads": self._threads,
            "call": self._call,
        }
        await deeds[self.context.settings.deed]()

    async def _raise(self) -> None:
        raise ZeroDivisionError("a bug")

    async def _return(self) -> None:
        return

    async def _fatal(self) -> None:
        raise FatalError("there is no such port")

    async def _group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fatal())

    async def _retry(self) -> None:
        raise RetryError("the adapter is gone")

    async def _exit(self) -> None:
        raise SystemExit(3)

    async def _block(self) -> None:
        time.sleep(10)
        await asyncio.Event().wait()

    async def _stutter(self) -> None:
        while True:
            time.sleep(0.5)
            await asyncio.sleep(0.05)

    async def _spin(self) -> None:
        while True:
            pass

    async def _busy(self) -> None:
        while True:
            await asyncio.sleep(0)

    async def _leak(self) -> None:
        kept: list[bytes] = []
        while len(kept) * 10_000_000 < LEAK_BYTES:
            kept.append(b"x" * 10_000_000)
            await asyncio.sleep(0)

    async def _fork(self) -> None:
        if os.fork() == 0:
            time.sleep(600)

    async def _files(self) -> None:
        kept = [open("/dev/null", "rb") for _ in range(FILES)]
        await self.context.emit("hostile.done", len(kept))

    async def _flood(self) -> None:
        refused = 0
        for number in range(self.context.settings.count):
            try:
                self.context.hand_over("hostile.flood", number)
            except EmitError:
                refused += 1
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await self.context.emit("hostile.done", refused)
        await asyncio.Event().wait()

    async def _ignore(self) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def _segfault(self) -> None:
        ctypes.string_at(0)

    async def _die(self) -> None:
        os._exit(7)

    async def _quota(self) -> None:
        try:
            for number in range(100):
                await self.context.state.set(f"key {number}", "x" * 100_000)
        except StateError as error:
            await self.context.emit("hostile.done", str(error))
        await asyncio.Event().wait()

    async def _garbage(self) -> None:
        told = []
        things: list[tuple[str, Any]] = [
            ("Not A Type", 1),
            ("hostile.done", {1, 2}),
            ("hostile.done", float("nan")),
            ("", None),
            ("hostile.done", "x" * 10_000_000),
        ]
        for kind, data in things:
            try:
                await self.context.emit(kind, data, stream=Stream.EVENT)
            except EmitError as error:
                told.append(str(error)[:80])
        await self.context.emit("hostile.done", told)
        await asyncio.Event().wait()

    async def _temporary(self) -> None:
        for number in range(100):
            Path(f"file-{number}").write_bytes(b"x" * 1_000_000)
        await asyncio.Event().wait()

    async def _peek(self) -> None:
        found: dict[str, object] = {}
        for path in (self.context.settings.path, "/etc/shadow", f"/proc/{os.getppid()}/environ"):
            try:
                with open(path, "rb") as file:
                    found[path] = len(file.read(10))
            except OSError as error:
                found[path] = error.strerror or ""
        await self.context.emit("hostile.done", [found, sorted(os.environ)])
        await asyncio.Event().wait()

    async def _kill(self) -> None:
        try:
            os.kill(os.getppid(), signal.SIGKILL)
        except OSError as error:
            await self.context.emit("hostile.done", error.strerror)
        await asyncio.Event().wait()

    async def _threads(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(self.context.run_blocking(threading.Event().wait))

    async def _call(self) -> None:
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(self.context.settings.path)
                line.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
                told = line.recv(100).decode().splitlines()[0]
            except OSError as error:
                told = error.strerror or ""
        await self.context.emit("hostile.done", told)
        await asyncio.Event().wait()

    @command()
    async def stumble(self, args: NoArgs, progress: Progress) -> None:
        """Break."""
        raise ZeroDivisionError("no")
