"""What the agent and a plugin in a process of its own say to each other while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from nexus_agent.plugin import (
    EmitError,
    Overflow,
    PluginError,
    Progress,
    StateError,
    Stream,
)
from nexus_agent.runtime.allowance import Allowance
from nexus_agent.runtime.context import Outlet, Services
from nexus_agent.runtime.wire import Wire, WireError
from nexus_agent.store.errors import StoreError

IN_FLIGHT: Final = 64
"""Questions that are under way at once; then the next message waits."""
LOGS_S: Final = 20.0
"""Log lines a second that are passed on, with twenty times as many at once."""


class Dialogue:
    """With the plugin *name* over *wire*, in tasks of *group*; `take` gets what comes.

    ended: its last message, once it has come; ponged: monotonic time of its last answer to a ping.
    """

    def __init__(
        self, name: str, services: Services, outlet: Outlet, wire: Wire, group: asyncio.TaskGroup
    ) -> None:
        self._name = name
        self._services = services
        self._outlet = outlet
        self._wire = wire
        self._group = group
        self._log = structlog.get_logger("plugin").bind(plugin=name)
        self._logs = Allowance(LOGS_S)
        self._unlogged = 0
        self._turns = asyncio.Semaphore(IN_FLIGHT)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._progress: dict[int, Progress] = {}
        self._listening: dict[int, asyncio.Task[None]] = {}
        self._number = 0
        self.ended: Mapping[str, Any] | None = None
        self.ponged = time.monotonic()

    def close(self) -> None:
        """Nobody answers any more."""
        for task in self._listening.values():
            task.cancel()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(PluginError("its process ended meanwhile"))
        self._answers.clear()

    # -- what it says ------------------------------------------------------------------------

    async def take(self, message: dict[str, Any]) -> None:
        """Do what *message* asks for. Raises WireError, and what a wrong one of its fields does."""
        do = message["do"]
        if do == "emit":
            events, stream = events_of(message)
            await self._answering(message["id"], self._outlet.emit(events, stream))
        elif do == "hand_over":
            with suppress(EmitError):  # counted; it could not be told in time anyway
                self._outlet.hand_over(*events_of(message))
        elif do == "pong":
            self.ponged = time.monotonic()
        elif do == "ended":
            self.ended = message
        elif do == "report":
            self._outlet.report(str(message["text"])[:500])
        elif do == "alive":
            self._outlet.alive()
        elif do == "log":
            self._pass_on(message)
        else:
            await self._take_question(message)

    async def _take_question(self, message: dict[str, Any]) -> None:
        do, number = message["do"], int(message["id"])
        if do in {"get", "set"}:
            state, key = self._services.state_of(self._name), str(message["key"])
            asked = state.get(key) if do == "get" else state.set(key, message["value"])
            await self._answering(number, asked)
        elif do == "vehicle":
            names = self._services.name_vehicle(str(message["vin"]))
            self._wire.put("answer", id=number, value=names)
        elif do == "subscribe":
            patterns = tuple(map(str, message["patterns"]))
            listening = self._listen(number, patterns, Overflow(message["overflow"]))
            self._listening[number] = self._group.create_task(
                listening, name=f"listen:{self._name}"
            )
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
                self._wire.put("answer", id=number, value=value)
            except EmitError as error:
                self._wire.put("answer", id=number, kind="emit", error=str(error))
            except (StateError, StoreError) as error:
                self._wire.put("answer", id=number, kind="state", error=str(error))
            finally:
                self._turns.release()

        self._group.create_task(answer(), name=f"answer:{self._name}")

    async def _listen(self, number: int, patterns: tuple[str, ...], overflow: Overflow) -> None:
        with self._services.bus.listen(*patterns, overflow=overflow) as listener:
            async for event in listener:
                values = (event.source, event.type, str(event.stream), event.time, event.data)
                await self._wire.send("event", id=number, event=values)

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

    async def invoke(self, command: str, args: Any, progress: Progress) -> Any:
        """Run a command of the plugin. Raises PluginError."""
        number = self._number + 1
        self._progress[number] = progress
        try:
            return await self.ask("invoke", name=command, args=args)
        finally:
            del self._progress[number]

    async def ask(self, do: str, **fields: Any) -> Any:
        """What the plugin's side answers. Raises PluginError."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            await self._wire.send(do, id=number, **fields)
            return await future
        finally:
            self._answers.pop(number, None)


def events_of(message: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], Stream]:
    """The events of a message, and their stream. Raises ValueError and TypeError for others."""
    events = [(str(kind), data) for kind, data in message["events"]]
    return events, Stream(message["stream"])
