"""Plugins that put the agent's process to the test; each touches `mark` once it is at its work."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from pydantic import model_validator

from nexus_agent.plugin import FatalError, Plugin, Settings, Stream

HANDED_OVER = 2500
LANES = 8


class MarkSettings(Settings):
    """What each of these plugins takes."""

    mark: Path


class _TestPlugin(Plugin[MarkSettings]):
    version = "1"
    description = "For tests."
    author = "tests"
    settings_model = MarkSettings

    def mark(self) -> None:
        self.context.settings.mark.touch()


class Stubborn(_TestPlugin):
    """Ignores its cancellation, for ever."""

    name = "stubborn"

    async def run(self) -> None:
        self.mark()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


class Blocking(_TestPlugin):
    """Sits in a call that nothing can interrupt."""

    name = "blocking"

    async def run(self) -> None:
        await self.context.run_blocking(self._block)

    def _block(self) -> None:
        self.mark()
        threading.Event().wait(600)


class Freezing(_TestPlugin):
    """Holds the event loop, for ever."""

    name = "freezing"

    async def run(self) -> None:
        self.mark()
        threading.Event().wait(600)


class Parting(_TestPlugin):
    """Hands events over, more than one segment takes, and says so at once."""

    name = "parting"
    emits = ("parting.event",)

    async def run(self) -> None:
        for n in range(HANDED_OVER):
            self.context.hand_over("parting.event", n, stream=Stream.TELEMETRY)
        self.mark()
        await asyncio.Event().wait()


class Fatal(_TestPlugin):
    """Says that it cannot work here."""

    name = "fatal"

    async def run(self) -> None:
        raise FatalError("there is no such port")


class Flaky(_TestPlugin):
    """Breaks in its first run and works in the next."""

    name = "flaky"

    async def run(self) -> None:
        if await self.context.state.get("broke") is None:
            await self.context.state.set("broke", value=True)
            raise ZeroDivisionError("a bug")
        self.mark()
        await asyncio.Event().wait()


class Load(_TestPlugin):
    """Emits numbers in several lanes at once; notes each in `mark` once `emit` has returned."""

    name = "load"
    emits = ("load.number",)

    async def run(self) -> None:
        with self.context.settings.mark.open("ab", buffering=0) as notes:
            async with asyncio.TaskGroup() as group:
                for lane in range(LANES):
                    stream = Stream.TELEMETRY if lane == 0 else Stream.EVENT
                    group.create_task(self._emit(lane, stream, notes.fileno()), name=f"lane:{lane}")

    async def _emit(self, lane: int, stream: Stream, notes: int) -> None:
        number = 0
        while True:
            number += 1
            await self.context.emit("load.number", [os.getpid(), lane, number], stream=stream)
            os.write(notes, b"%d %d %d\n" % (os.getpid(), lane, number))


class FussySettings(Settings):
    """Its own check breaks."""

    @model_validator(mode="after")
    def _check(self) -> FussySettings:
        raise ZeroDivisionError("a bug\nin a validator")


class Fussy(Plugin[FussySettings]):
    """Cannot even check its settings."""

    name = "fussy"
    version = "1"
    description = "For tests."
    author = "tests"
    settings_model = FussySettings

    async def run(self) -> None:
        return


class Nameless(Plugin[Settings]):
    """Forgot to say what it is called."""

    async def run(self) -> None:
        return
