"""Commands against a real journal and outbox: exactly one terminal state, told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from nexus_agent.clock import Clock
from nexus_agent.manage.commands import Commander
from nexus_agent.plugin import CommandSpec, NoArgs, PluginError, Progress, Safety
from nexus_agent.protocol import (
    Command,
    CommandResult,
    CommandState,
    Event,
    Signed,
    Stream,
    open_segment,
)
from nexus_agent.store import journal
from nexus_agent.store.buffer import BUFFER_BYTES
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox

DEVICE = "box-1"


class ScanArgs(BaseModel):
    depth: int = 1


class Runner:
    """Knows a few commands; stands where the supervisor stands."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.hold = asyncio.Event()
        self.before_progress: Callable[[], None] = lambda: None

    def find(self, name: str) -> CommandSpec | None:
        known: dict[str, tuple[type[BaseModel], Safety, float]] = {
            "obd.scan": (ScanArgs, Safety.READ, 5.0),
            "obd.clear": (NoArgs, Safety.CLEAR, 5.0),
            "obd.fail": (NoArgs, Safety.READ, 5.0),
            "obd.slow": (NoArgs, Safety.READ, 0.05),
            "obd.hang": (NoArgs, Safety.READ, 60.0),
            "obd.odd": (NoArgs, Safety.READ, 5.0),
            "obd.flood": (NoArgs, Safety.READ, 5.0),
        }
        if name not in known:
            return None
        args, safety, timeout_s = known[name]
        return CommandSpec(name, args, safety, timeout_s, name, name)

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        self.done.append(name)
        if name == "obd.fail":
            raise PluginError("the adapter is silent")
        if name in {"obd.slow", "obd.hang"}:
            await self.hold.wait()
        self.before_progress()
        progress("reading")
        return object() if name == "obd.odd" else {"args": args.model_dump()}


class Stage:
    def __init__(self, commander: Commander, outbox: Outbox, runner: Runner) -> None:
        self.commander = commander
        self.outbox = outbox
        self.runner = runner

    def send(self, command: Command) -> None:
        self.commander.receive(Signed(document=command.encode().decode()).encode())

    async def told(self) -> list[CommandResult]:
        events: list[Event] = []
        for segment in await self.outbox.after(Stream.EVENT, 0, 1000):
            events += open_segment(segment)
        return [CommandResult.model_validate(e.data) for e in events if e.type == "command.result"]

    async def states(self, count: int) -> list[CommandState]:
        async with asyncio.timeout(10):
            while len(found := await self.told()) < count:
                await asyncio.sleep(0.005)
        return [result.state for result in found]


@asynccontextmanager
async def stage(state_dir: Path, *allow: Safety) -> AsyncIterator[Stage]:
    database, clock = Database(state_dir), Clock()
    await database.open()
    outbox = Outbox(database, DEVICE, clock)
    await outbox.open()
    runner = Runner()
    commander = Commander(
        DEVICE,
        outbox,
        journal.Journal(database),
        runner,
        clock,
        frozenset(allow or (Safety.READ,)),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="outbox")
        running = group.create_task(commander.run(), name="commands")
        yield Stage(commander, outbox, runner)
        running.cancel()
        await asyncio.wait([running])
        outbox.close()
    await database.close()


def make(name: str = "obd.scan", **changes: Any) -> Command:
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "id": "c-1",
        "device": DEVICE,
        "counter": 1,
        "not_before": now.isoformat(),
        "expires": (now + timedelta(minutes=1)).isoformat(),
        "name": name,
    }
    return Command(**{**fields, **changes})


ACCEPTED, RUNNING, SUCCEEDED, FAILED, REJECTED, EXPIRED = CommandState


async def test_a_command_is_accepted_run_and_answered(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        box.send(make(args={"depth": 2}))
        assert await box.states(4) == [ACCEPTED, RUNNING, RUNNING, SUCCEEDED]
        last = (await box.told())[-1]
        assert last.result == {"args": {"depth": 2}}


async def test_a_progress_that_cannot_be_written_does_not_fail_the_command(
    state_dir: Path,
) -> None:
    async with stage(state_dir) as box:

        def fill() -> None:
            large = "x" * 200_000
            for _ in range(BUFFER_BYTES // len(large) + 1):
                box.outbox.hand_over("test", "a.b", large, Stream.TELEMETRY)

        box.runner.before_progress = fill
        box.send(make("obd.flood"))
        assert await box.states(3) == [ACCEPTED, RUNNING, SUCCEEDED]


async def test_a_repeat_is_not_done_again_and_gets_the_stored_result(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        box.send(make())
        await box.states(4)
    async with stage(state_dir) as box:
        box.send(make())
        assert (await box.states(5))[-1] is SUCCEEDED
        assert box.runner.done == []


async def test_a_repeat_while_it_runs_changes_nothing(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        box.send(make("obd.hang"))
        await box.states(2)
        box.send(make("obd.hang"))
        box.send(make(id="c-2"))
        await box.states(6)
        assert box.runner.done == ["obd.hang", "obd.scan"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("obd.fail", "the adapter is silent"),
        ("obd.slow", "not done within"),
        ("obd.odd", "not JSON"),
    ],
)
async def test_a_failure_is_told_in_words(state_dir: Path, name: str, words: str) -> None:
    async with stage(state_dir) as box:
        box.send(make(name))
        async with asyncio.timeout(10):
            while not (told := await box.told()) or not told[-1].state.terminal:
                await asyncio.sleep(0.005)
        assert told[-1].state is FAILED
        assert words in (told[-1].error or "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "obd.unknown"}, "no command"),
        ({"name": "obd.clear"}, "does not allow"),
        ({"args": {"depth": "deep"}}, "depth"),
    ],
)
async def test_what_this_box_does_not_do_is_rejected_undone(
    state_dir: Path, changes: dict[str, Any], words: str
) -> None:
    async with stage(state_dir) as box:
        box.send(make(**changes))
        assert await box.states(1) == [REJECTED]
        assert words in ((await box.told())[0].error or "")
        assert box.runner.done == []


async def test_a_class_that_the_shop_allows_is_done(state_dir: Path) -> None:
    async with stage(state_dir, Safety.READ, Safety.CLEAR) as box:
        box.send(make("obd.clear"))
        assert (await box.states(4))[-1] is SUCCEEDED


async def test_a_command_that_comes_too_late_expires(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        past = datetime.now(UTC) - timedelta(minutes=2)
        box.send(
            make(not_before=past.isoformat(), expires=(past + timedelta(1 / 1440)).isoformat())
        )
        assert await box.states(1) == [EXPIRED]
        assert box.runner.done == []


@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"\xff\xfe", b'{"document": "{}"}', b'{"document": "nonsense"}'],
)
async def test_an_unreadable_command_changes_nothing(state_dir: Path, payload: bytes) -> None:
    async with stage(state_dir) as box:
        box.commander.receive(payload)
        box.send(make())
        assert (await box.states(4))[-1] is SUCCEEDED


async def test_a_command_for_another_box_changes_nothing(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        box.send(make(id="c-2", device="box-2"))
        box.send(make())
        await box.states(4)
        assert {result.id for result in await box.told()} == {"c-1"}


async def test_a_command_that_a_stop_interrupted_has_failed(state_dir: Path) -> None:
    async with stage(state_dir) as box:
        box.send(make("obd.hang"))
        await box.states(2)
    async with stage(state_dir) as box:
        assert (await box.states(3))[-1] is FAILED
        assert box.runner.done == []
