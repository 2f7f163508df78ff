"""Plugins as tasks of the agent: who blocks the loop is named, counted and moved out of it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.unit.agent.runtime.stage import POLICY, Stage, section, supervised

from nexus_agent import discovery
from nexus_agent.config import SupervisorSection
from nexus_agent.plugin import Overflow, Plugin, PluginError, Settings
from nexus_agent.runtime.stalls import Stall, StallWatch
from nexus_agent.runtime.states import PluginState
from nexus_agent.sections import Isolation, PluginSection
from nexus_agent.testing import MemoryState
from nexus_agent.vitals import costs

BUNDLES = Path(__file__).parents[3] / "plugins"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BUNDLES / "hostile"))
    monkeypatch.syspath_prepend(str(BUNDLES / "neighbour"))


def task(name: str, **keys: Any) -> PluginSection:
    """A bundle's plugin as a task."""
    code = discovery.bundle(BUNDLES / name)
    plugin = discovery.load(code)
    settings = plugin.settings_model.model_validate(keys)
    return PluginSection(
        name, code, Isolation.TASK, keys=keys, plugin=plugin, settings=settings, source="agent.toml"
    )


def process(name: str, **keys: Any) -> PluginSection:
    code = discovery.bundle(BUNDLES / name)
    return PluginSection(name, code, Isolation.PROCESS, keys=keys, source="agent.toml")


@asynccontextmanager
async def watched(stage: Stage, limit_s: float = 0.2) -> AsyncIterator[list[Stall]]:
    stalls: list[Stall] = []

    def stalled(stall: Stall) -> None:
        stalls.append(stall)
        stage.supervisor.stalled(stall)

    with StallWatch(stage.supervisor.meter, {}, stalled, limit_s).watching():
        yield stalls


def numbers(stage: Stage) -> list[int]:
    return stage.sink.of("neighbour")


async def goes_on(stage: Stage) -> None:
    before = len(numbers(stage))
    await stage.until(lambda: len(numbers(stage)) > before + 3)
    assert numbers(stage) == list(range(1, len(numbers(stage)) + 1))


async def test_a_plugin_that_blocks_the_loop_is_named_with_its_place() -> None:
    async with (
        supervised(task("hostile", deed="stutter"), task("neighbour")) as stage,
        watched(stage) as stalls,
    ):
        await stage.until(lambda: stalls)
        assert stalls[0].plugin == "hostile"
        assert 0.2 < stalls[0].seconds < 5
        assert any("hostile_plugin.py" in line and "_stutter" in line for line in stalls[0].stack)
        assert "kept the agent's event loop" in stage.item("hostile").last_error
        await goes_on(stage)


async def test_after_three_offences_it_goes_on_in_a_process_of_its_own_and_that_is_kept() -> None:
    kept: dict[str, MemoryState] = {}
    sections = task("hostile", deed="stutter"), task("neighbour")
    async with supervised(*sections, kept=kept) as stage, watched(stage) as stalls:
        await stage.until(
            lambda: stage.item("hostile").moved and stage.state("hostile") is PluginState.RUNNING
        )
        assert len(stalls) >= 3
        assert stage.item("hostile").isolation is Isolation.PROCESS
        assert "offence 3 within an hour" in stage.item("hostile").moved
        assert any(c.alarming and "kept the agent's" in c.reason for c in stage.changes)
        before = len(stalls)
        await goes_on(stage)
        assert len(stalls) == before, "it blocks its own loop now"
    async with supervised(*sections, kept=kept) as again:
        await again.until(lambda: again.state("hostile") is PluginState.RUNNING)
        assert again.item("hostile").isolation is Isolation.PROCESS
        again.supervisor.restart("hostile")
        await again.until(lambda: again.item("hostile").isolation is Isolation.TASK)


async def test_normal_jitter_trips_nothing() -> None:
    async with (
        supervised(task("neighbour", pause_s=0.0)) as stage,
        watched(stage, limit_s=3.0) as stalls,
    ):
        for _ in range(20):
            gc.collect()
            time.sleep(0.02)  # noqa: ASYNC251, TID251 - as a slow disk's moment blocks it
            await asyncio.sleep(0)
        await goes_on(stage)
        assert stalls == []


async def test_a_block_that_is_nobodys_names_nobody() -> None:
    async with supervised(task("neighbour")) as stage, watched(stage) as stalls:
        await goes_on(stage)
        time.sleep(0.6)  # noqa: ASYNC251, TID251 - the agent's own code is slow
        await stage.until(lambda: stalls)
        assert stalls[0].plugin is None
        assert stage.item("neighbour").counters.stalls == 0


async def test_time_on_the_loop_is_charged_to_who_took_it() -> None:
    async with supervised(task("hostile", deed="stutter"), task("neighbour")) as stage:
        await stage.until(lambda: stage.item("hostile").account.seconds > 1)
        assert stage.item("neighbour").account.seconds < 0.5
        await stage.until(lambda: stage.item("hostile").counters.loop_s > 1)


# -- who needs whom ------------------------------------------------------------------------------


class Base(Plugin[Settings]):
    name = "base"
    version = description = author = "1"
    emits = ("base.up",)
    up: ClassVar[asyncio.Event]

    async def run(self) -> None:
        await self.context.emit("base.up", {})
        await asyncio.Event().wait()


class Above(Base):
    name = "above"
    requires = ("base",)


class Left(Base):
    name = "left"
    requires = ("right",)


class Right(Base):
    name = "right"
    requires = ("left",)


async def test_a_plugin_starts_once_what_it_requires_runs() -> None:
    async with supervised(Above, Base) as stage:
        await stage.until(lambda: stage.state("above") is PluginState.RUNNING)
        order = [name for name, state in stage.states if state is PluginState.RUNNING]
        assert order == ["base", "above"]
        assert ("above", PluginState.WAITING) in stage.states


async def test_a_missing_one_is_a_clear_state_until_it_is_there() -> None:
    async with supervised(Above) as stage:
        await stage.until(lambda: stage.state("above") is PluginState.BLOCKED)
        item = stage.item("above")
        assert item.reason == "needs the plugin 'base', which is not switched on"
        assert not item.state.recoverable
        stage.supervisor.become([section(Above), section(Base)])
        await stage.until(lambda: stage.state("above") is PluginState.RUNNING)


async def test_a_circle_is_a_clear_state() -> None:
    async with supervised(Left, Right, Base) as stage:
        await stage.until(lambda: stage.state("left") is PluginState.BLOCKED)
        await stage.until(lambda: stage.state("right") is PluginState.BLOCKED)
        assert stage.item("left").reason == "needs itself: left → right → left"
        assert stage.state("base") is PluginState.RUNNING


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [task, process])
async def test_a_plugin_is_stopped_started_restarted_and_switched_off(
    make: Callable[[str], PluginSection],
) -> None:
    kept: dict[str, MemoryState] = {}
    async with supervised(make("neighbour"), Base, kept=kept) as stage:
        await stage.until(lambda: stage.state("neighbour") is PluginState.RUNNING)
        stage.supervisor.stop("neighbour", "anna")
        await stage.until(lambda: stage.item("neighbour").run is None)
        assert stage.state("neighbour") is PluginState.STOPPED
        assert stage.item("neighbour").reason == "stopped by anna"
        stage.supervisor.start("neighbour")
        await stage.until(lambda: stage.state("neighbour") is PluginState.RUNNING)
        with pytest.raises(PluginError, match="is running already"):
            stage.supervisor.start("neighbour")
        run = stage.item("neighbour").run
        stage.supervisor.restart("neighbour")
        await stage.until(
            lambda: (
                stage.item("neighbour").run not in {None, run}
                and stage.state("neighbour") is PluginState.RUNNING
            )
        )
        await stage.supervisor.switch("neighbour", on=False)
        await stage.until(lambda: stage.state("neighbour") is PluginState.DISABLED)
        with pytest.raises(PluginError, match="enable it first"):
            stage.supervisor.start("neighbour")
        assert stage.state("base") is PluginState.RUNNING
    async with supervised(make("neighbour"), kept=kept) as again:
        await again.until(lambda: again.state("neighbour") is PluginState.DISABLED)
        await again.supervisor.switch("neighbour", on=True)
        await again.until(lambda: again.state("neighbour") is PluginState.RUNNING)
        with pytest.raises(PluginError, match="there is no plugin 'nobody'"):
            again.supervisor.start("nobody")


# -- settings ------------------------------------------------------------------------------------


async def test_a_live_setting_changes_within_a_second_and_the_run_goes_on() -> None:
    async with supervised(task("neighbour", pause_s=600)) as stage:
        await stage.until(lambda: len(numbers(stage)) == 1)
        run = stage.item("neighbour").run
        assert stage.supervisor.become([task("neighbour", pause_s=0.01)]) == ["neighbour"]
        await stage.until(lambda: len(numbers(stage)) > 3, within=1)
        assert stage.item("neighbour").run is run
        await goes_on(stage)


class Hung(Base):
    name = "hung"
    deadline_s = 0.5


async def test_one_without_a_sign_of_life_is_restarted() -> None:
    async with supervised(Hung) as stage:
        await stage.until(lambda: stage.item("hung").restarts)
        reasons = [change.reason for change in stage.changes]
        assert "no sign of life for 0.5 s" in reasons


# -- the thread tier -----------------------------------------------------------------------------


class Calls(Plugin[Settings]):
    name = "calls"
    version = description = author = "1"
    let_go: ClassVar[threading.Event]
    seen: ClassVar[set[str]]

    async def run(self) -> None:
        await asyncio.gather(*(self.context.run_blocking(self._wait) for _ in range(10)))

    def _wait(self) -> None:
        self.seen.add(threading.current_thread().name)
        self.let_go.wait(60)


async def test_blocking_calls_are_bounded_named_measured_and_leave_no_thread() -> None:
    Calls.let_go, Calls.seen = threading.Event(), set()
    async with supervised(Calls) as stage:
        costs_ = stage.item("calls").counters.threads
        await stage.until(lambda: costs_.busy == 4)
        assert Calls.seen == {f"nexus-calls_{n}" for n in range(4)}
        Calls.let_go.set()
        await stage.until(lambda: stage.state("calls") is PluginState.STOPPED)
        assert (costs_.calls, costs_.busy) == (10, 0)
        assert costs_.seconds > 0
        await stage.until(lambda: not named("nexus-calls"))


async def test_calls_that_do_not_return_are_counted_and_get_no_more_threads() -> None:
    Calls.let_go, Calls.seen = threading.Event(), set()
    async with supervised(Calls) as stage:
        costs_ = stage.item("calls").counters.threads
        await stage.until(lambda: costs_.busy == 4)
        stage.supervisor.restart("calls")
        await stage.until(lambda: stage.item("calls").restarts)
        assert any("4 of its blocking calls do not return" in c.reason for c in stage.changes)
        assert len(named("nexus-calls")) == 4
        Calls.let_go.set()
        await stage.until(lambda: not costs_.busy)


def named(prefix: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


# -- many ----------------------------------------------------------------------------------------


def many(count: int, kind: type[Plugin[Any]]) -> list[type[Plugin[Any]]]:
    return [type(f"P{n}", (kind,), {"name": f"{kind.name}{n}"}) for n in range(count)]


class Crashing(Base):
    name = "crashing"

    async def run(self) -> None:
        raise ZeroDivisionError("a bug")


async def test_two_hundred_plugins_start_within_a_second() -> None:
    began = time.process_time()  # of a processor: nobody else's load counts
    async with supervised(*many(200, Base)) as stage:
        await stage.until(lambda: all(item.state is PluginState.RUNNING for item in stage.items()))
        assert time.process_time() - began < 1


async def test_a_thousand_tasks_that_crash_cost_little() -> None:
    policy = SupervisorSection(restarts=2, quarantine_s=600, backoff_s=0.2, backoff_cap_s=0.2)
    async with supervised(*many(1000, Crashing), policy=policy) as stage:
        await stage.until(
            lambda: all(i.state is PluginState.QUARANTINED for i in stage.items()), within=60
        )
        assert [item.restarts for item in stage.items()] == [2] * 1000
        gc.collect()
        before = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - before < 0.5, "at rest they cost next to nothing"


async def test_a_thousand_restarts_of_one_leak_nothing() -> None:
    policy = SupervisorSection(restarts=10_000, backoff_s=0.0001, backoff_cap_s=0.0001)
    async with supervised(Crashing, policy=policy) as stage:
        item = stage.item("crashing")

        async def measured() -> tuple[int, int, int, int]:
            gc.collect()
            now = costs()
            tasks = len(asyncio.all_tasks())
            return now.resident_bytes, now.descriptors, threading.active_count(), tasks

        await stage.until(lambda: item.restarts > 100)
        stage.changes.clear()
        first = await measured()
        await stage.until(lambda: item.restarts > 1100, within=60)
        stage.changes.clear()
        last = await measured()
        assert last[0] - first[0] < 5_000_000
        assert (last[1], last[2]) == (first[1], first[2])
        assert abs(last[3] - first[3]) <= 1


async def test_a_listener_says_what_it_missed() -> None:
    async with supervised(task("neighbour", pause_s=0.0)) as stage:
        with stage.bus.listen("neighbour.*", overflow=Overflow.LATEST) as listener:
            await goes_on(stage)
            async for event in listener:
                assert (event.source, event.type) == ("neighbour", "neighbour.number")
                break
        assert POLICY.restarts == 5
