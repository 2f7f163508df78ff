"""Commands from the console: checked, journaled, done once, answered.

Every command reaches exactly one terminal state. Its journal entry and the `command.result` event
that tells of it are committed in one transaction, so that neither can exist without the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final, Protocol

import orjson
import structlog
from pydantic import BaseModel, ValidationError

from nexus_agent.clock import Clock
from nexus_agent.plugin import CommandSpec, EmitError, PluginError, Progress, Safety
from nexus_agent.protocol import (
    Command,
    CommandResult,
    CommandState,
    ProtocolError,
    Signed,
    Stream,
    parse_time,
)
from nexus_agent.store import journal
from nexus_agent.store.buffer import Also
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import Outbox

log = structlog.get_logger("commands")

SOURCE: Final = "agent"
RESULT: Final = "command.result"
QUEUE_LENGTH: Final = 100
RESULT_BYTES: Final = 128 * 1024
"""Largest result that travels in an event."""


class Runner(Protocol):
    """Who knows the commands and does them; the supervisor is one."""

    def find(self, name: str) -> CommandSpec | None: ...

    def invoke(self, name: str, args: BaseModel, progress: Progress) -> Awaitable[Any]: ...


class RefusedError(Exception):
    """A command will not be done; the message says why."""


class Commander:
    """Give it what arrives on `down/command`; keep `run` running."""

    def __init__(
        self,
        device: str,
        outbox: Outbox,
        entries: journal.Journal,
        runner: Runner,
        clock: Clock,
        allow: frozenset[Safety],
    ) -> None:
        self._device = device
        self._outbox = outbox
        self._journal = entries
        self._runner = runner
        self._clock = clock
        self.allow = allow
        """Classes of commands that this box does."""
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_LENGTH)

    def receive(self, payload: bytes) -> None:
        """Take one message. When too many wait it is dropped: the console sends it again."""
        try:
            self._arrived.put_nowait(payload)
        except asyncio.QueueFull:
            log.warning("command_dropped", waiting=QUEUE_LENGTH)

    async def run(self) -> None:
        """Do what arrives, one task a command, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for entry in await self._journal.unfinished():
                if entry.state is CommandState.RUNNING:
                    await self._finish(
                        _failure(entry.command, "the agent was stopped while the command ran")
                    )
                else:
                    self._start(group, entry.command)
            while True:
                payload = await self._arrived.get()
                try:
                    command = await self._accept(payload)
                except StoreError as error:
                    # Not journaled, so not done: the console sends it again.
                    log.warning("command_not_journaled", error=str(error))
                    continue
                if command is not None:
                    self._start(group, command)

    def _start(self, group: asyncio.TaskGroup, command: Command) -> None:
        group.create_task(self._execute(command), name=f"command:{command.name}:{command.id}")

    # -- taking ------------------------------------------------------------------------------

    async def _accept(self, payload: bytes) -> Command | None:
        """Journal a new command and return it; None for one that is not to be done (again)."""
        try:
            command: Command = Command.decode(Signed.decode(payload).document.encode())
        except ProtocolError as error:
            log.warning("command_unreadable", error=str(error))
            return None
        if command.device != self._device:
            log.warning("command_misdirected", id=command.id, device=command.device)
            return None
        known = await self._journal.find(command.id)
        if known is not None:
            if known.result is not None:
                await self._tell(known.result)
            return None
        try:
            self._check(command)
        except RefusedError as refusal:
            await self._refuse(command, CommandState.REJECTED, str(refusal))
            return None
        if parse_time(command.expires) <= self._clock.stamp().wall:
            await self._refuse(command, CommandState.EXPIRED, "it arrived after its expiry")
            return None
        accepted = CommandResult(id=command.id, name=command.name, state=CommandState.ACCEPTED)
        note = partial(journal.record, command, self._clock.stamp().wall)
        return command if await self._tell(accepted, note) else None

    def _check(self, command: Command) -> None:
        """Raise RefusedError unless this box knows, allows and understands the command."""
        spec = self._runner.find(command.name)
        if spec is None:
            raise RefusedError(f"this box has no command {command.name!r}")
        if spec.safety not in self.allow:
            raise RefusedError(
                f"{command.name} is of class {str(spec.safety)!r}, which this box does not allow"
            )
        _arguments(spec, command)
        if parse_time(command.not_before) > parse_time(command.expires):
            raise RefusedError("its not_before is later than its expiry")

    async def _refuse(self, command: Command, state: CommandState, why: str) -> None:
        log.info("command_refused", id=command.id, name=command.name, state=str(state), why=why)
        wall = self._clock.stamp().wall
        result = CommandResult(id=command.id, name=command.name, state=state, error=why)

        def note(connection: Any) -> None:
            journal.record(command, wall, connection)
            journal.finish(result, wall, connection)

        await self._tell(result, note)

    # -- doing -------------------------------------------------------------------------------

    async def _execute(self, command: Command) -> None:
        wait = (parse_time(command.not_before) - self._clock.stamp().wall) / 1e9
        if wait > 0:
            await asyncio.sleep(wait)
        spec = self._runner.find(command.name)
        if spec is None:
            await self._finish(_failure(command, f"this box has no command {command.name!r} now"))
            return
        running = CommandResult(id=command.id, name=command.name, state=CommandState.RUNNING)
        # What is not in the journal is not done: without this note a crash could not tell.
        if await self._tell(running, partial(journal.start, command.id)):
            await self._finish(await self._invoke(command, spec))

    async def _invoke(self, command: Command, spec: CommandSpec) -> CommandResult:
        def progress(text: str) -> None:
            step = CommandResult(
                id=command.id, name=command.name, state=CommandState.RUNNING, progress=text
            )
            try:
                self._outbox.hand_over(SOURCE, RESULT, _data(step), Stream.EVENT)
            except EmitError as error:
                # A step that nobody hears of is no failure of what the command does.
                log.warning("progress_untold", id=command.id, error=str(error))

        try:
            arguments = _arguments(spec, command)
            async with asyncio.timeout(spec.timeout_s):
                value = await self._runner.invoke(command.name, arguments, progress)
            size = len(orjson.dumps(value))
        except (PluginError, RefusedError) as error:
            return _failure(command, str(error))
        except TimeoutError:
            return _failure(command, f"it was not done within {spec.timeout_s:g} s")
        except TypeError as error:
            return _failure(command, f"its result is not JSON: {error}")
        if size > RESULT_BYTES:
            return _failure(command, f"its result has {size} bytes, at most {RESULT_BYTES} travel")
        return CommandResult(
            id=command.id, name=command.name, state=CommandState.SUCCEEDED, result=value
        )

    async def _finish(self, result: CommandResult) -> None:
        log.info("command_done", id=result.id, name=result.name, state=str(result.state))
        await self._tell(result, partial(journal.finish, result, self._clock.stamp().wall))

    async def _tell(self, result: CommandResult, also: Also | None = None) -> bool:
        """Commit a result's event and *also* together; False if the box could not write it."""
        try:
            await self._outbox.emit(SOURCE, [(RESULT, _data(result))], Stream.EVENT, also=also)
        except EmitError as error:
            log.warning("command_untold", id=result.id, state=str(result.state), error=str(error))
            return False
        return True


def _arguments(spec: CommandSpec, command: Command) -> BaseModel:
    try:
        return spec.args.model_validate(command.args)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "args"
        raise RefusedError(f"{command.name}: {where}: {first['msg']}") from None


def _failure(command: Command, why: str) -> CommandResult:
    return CommandResult(id=command.id, name=command.name, state=CommandState.FAILED, error=why)


def _data(result: CommandResult) -> dict[str, Any]:
    return result.model_dump(mode="json", exclude_none=True)
