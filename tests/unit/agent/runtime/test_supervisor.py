"""The supervisor with real plugins: whatever one does, the others and the agent go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import pytest
from tests.unit.agent.runtime.stage import POLICY, Stage, section, supervised

from nexus_agent.config import SupervisorSection
from nexus_agent.plugin import (
    FatalError,
    NoArgs,
    Plugin,
    PluginError,
    Progress,
    RetryError,
    Settings,
    command,
)
from nexus_agent.runtime import supervisor as module
from nexus_agent.runtime.context import VehicleNames
from nexus_agent.runtime.life import backoff
from nexus_agent.runtime.states import PluginState
from nexus_agent.sections import PluginSection


class Good(Plugin[Settings]):
    name = "good"
    version = "1"
    description = "Works."
    author = "tests"
    emits = ("good.started",)

    async def run(self) -> None:
        await self.context.emit("good.started", {})
        await asyncio.Event().wait()

    @command()
    async def greet(self, args: NoArgs, progress: Progress) -> str:
        """Say hello."""
        progress("half way")
        return "hello"

    @command()
    async def stumble(self, args: NoArgs, progress: Progress) -> None:
        """Break."""
        raise ZeroDivisionError("no")

    @command()
    async def leave(self, args: NoArgs, progress: Progress) -> None:
        """Exit, as a program would."""
        raise SystemExit(3)


class Failing(Plugin[Settings]):
    name = "failing"
    version = "1"
    description = "Fails as it is told."
    author = "tests"
    error: ClassVar[BaseException] = RetryError("the adapter is gone")

    async def run(self) -> None:
        raise self.error


class Brief(Plugin[Settings]):
    name = "brief"
    version = "1"
    description = "Is done at once."
    author = "tests"

    async def run(self) -> None:
        return


class Listener(Plugin[Settings]):
    name = "listener"
    version = "1"
    description = "Answers what it hears."
    author = "tests"
    emits = ("listener.ready", "listener.heard")

    async def run(self) -> None:
        async with self.context.subscribe("good.started") as events:
            await self.context.emit("listener.ready", {})
            async for event in events:
                await self.context.emit("listener.heard", {"from": event.source})


@pytest.fixture
def failing_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    return lambda error: monkeypatch.setattr(Failing, "error", error)


async def test_a_plugin_runs_until_the_supervisor_is_cancelled() -> None:
    async with supervised(Good) as stage:
        await stage.until(lambda: stage.state("good") is PluginState.RUNNING)
    assert [event[1] for event in stage.sink.events] == ["good.started"]


@pytest.mark.parametrize("error", [RetryError("gone"), ValueError("a bug"), SystemExit(3)])
async def test_a_failing_plugin_is_restarted_and_its_neighbour_goes_on(
    failing_with: Callable[[BaseException], None], error: BaseException
) -> None:
    failing_with(error)
    async with supervised(Failing, Good) as stage:
        await stage.until(lambda: stage.supervisor.plugins["failing"].restarts >= 2)
        assert stage.state("good") is PluginState.RUNNING
        assert type(error).__name__ in stage.supervisor.plugins["failing"].last_error


async def test_a_fatal_error_is_final(failing_with: Callable[[BaseException], None]) -> None:
    failing_with(FatalError("no such port"))
    async with supervised(Failing) as stage:
        await stage.until(lambda: stage.state("failing") is PluginState.FAILED)
        item = stage.supervisor.plugins["failing"]
        assert (item.reason, item.restarts, item.state.recoverable) == ("no such port", 0, False)


async def test_an_error_of_a_task_group_counts_as_the_error_itself(
    failing_with: Callable[[BaseException], None],
) -> None:
    inner = ExceptionGroup("of one channel", [FatalError("no such port")])
    failing_with(ExceptionGroup("unhandled errors in a TaskGroup", [inner, RetryError("gone")]))
    async with supervised(Failing) as stage:
        await stage.until(lambda: stage.state("failing") is PluginState.FAILED)
        assert stage.supervisor.plugins["failing"].reason == "no such port"


async def test_too_many_restarts_mean_quarantine() -> None:
    async with supervised(Failing) as stage:
        await stage.until(lambda: stage.state("failing") is PluginState.QUARANTINED)
        assert stage.supervisor.plugins["failing"].restarts == POLICY.restarts
        assert stage.supervisor.plugins["failing"].state.recoverable


async def test_a_plugin_that_is_done_is_not_restarted() -> None:
    async with supervised(Brief) as stage:
        await stage.until(lambda: stage.state("brief") is PluginState.STOPPED)
        assert stage.supervisor.plugins["brief"].restarts == 0


async def test_plugins_hear_each_other() -> None:
    async with supervised(Listener, Good) as stage:
        await stage.until(
            lambda: ("listener", "listener.heard", {"from": "good"}) in stage.sink.events
        )


async def test_a_command_runs_in_its_plugin_and_tells_its_progress() -> None:
    async with supervised(Good) as stage:
        await stage.until(lambda: stage.state("good") is PluginState.RUNNING)
        told: list[str] = []
        assert await stage.supervisor.invoke("good.greet", NoArgs(), told.append) == "hello"
        assert told == ["half way"]


async def test_a_command_that_breaks_breaks_nothing_else() -> None:
    async with supervised(Good) as stage:
        await stage.until(lambda: stage.state("good") is PluginState.RUNNING)
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            await stage.supervisor.invoke("good.stumble", NoArgs(), print)
        assert stage.state("good") is PluginState.RUNNING


async def test_a_command_that_exits_ends_neither_plugin_nor_agent() -> None:
    async with supervised(Good) as stage:
        await stage.until(lambda: stage.state("good") is PluginState.RUNNING)
        with pytest.raises(PluginError, match="SystemExit"):
            await stage.supervisor.invoke("good.leave", NoArgs(), print)
        assert stage.state("good") is PluginState.RUNNING


async def test_a_command_of_a_plugin_that_is_down_says_so(
    failing_with: Callable[[BaseException], None],
) -> None:
    async with supervised(Brief, Good) as stage:
        await stage.until(lambda: stage.state("brief") is PluginState.STOPPED)
        assert stage.supervisor.find("brief.greet") is None
        assert stage.supervisor.find("nobody.greet") is None


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 0.5, 1), (3, 2, 4), (30, 30, 60)])
def test_the_backoff_doubles_up_to_its_cap(attempt: int, low: float, high: float) -> None:
    waits = [backoff(SupervisorSection(), attempt) for _ in range(200)]
    assert low <= min(waits) <= max(waits) <= high


def test_a_vehicle_is_named_alike_by_boxes_that_share_the_key() -> None:
    one, other = (VehicleNames(b"k" * 32, show_vin=False)("1HGCM82633A004352") for _ in range(2))
    assert one == other == {"vehicle_ref": one["vehicle_ref"]}
    assert "1HGCM82633A004352" not in str(one)


def test_another_key_names_a_vehicle_otherwise_and_the_vin_shows_where_allowed() -> None:
    names = VehicleNames(b"o" * 32, show_vin=True)("1HGCM82633A004352")
    assert names["vin"] == "1HGCM82633A004352"
    assert (
        names["vehicle_ref"]
        != VehicleNames(b"k" * 32, show_vin=True)("1HGCM82633A004352")["vehicle_ref"]
    )


# -- other settings ------------------------------------------------------------------------------


class Tuned(Settings):
    speed: int = 1


class Motor(Plugin[Tuned]):
    name = "motor"
    version = "1"
    description = "Turns at a speed; says so when it starts and when it ends."
    author = "tests"
    emits = ("motor.on", "motor.off")
    settings_model = Tuned
    last_words: ClassVar[BaseException | None] = None
    holds_on: ClassVar[asyncio.Event | None] = None

    async def run(self) -> None:
        speed = self.context.settings.speed
        await self.context.emit("motor.on", speed)
        try:
            await asyncio.Event().wait()
        finally:
            if self.holds_on is not None:
                await self.holds_on.wait()
            await self.context.emit("motor.off", speed)
            if self.last_words is not None:
                raise self.last_words


def motor(speed: int) -> PluginSection:
    return section(Motor, speed=speed)


def good() -> PluginSection:
    return section(Good)


def turns(stage: Stage) -> list[tuple[str, int]]:
    return [(kind, data) for source, kind, data in stage.sink.events if source == "motor"]


async def test_a_plugin_with_other_settings_ends_before_it_begins_and_its_neighbour_stays() -> None:
    async with supervised(Good) as stage:
        assert stage.supervisor.become([good(), motor(1)]) == ["motor"]
        await stage.until(lambda: stage.state("motor") is PluginState.RUNNING)
        run = stage.supervisor.plugins["good"].run

        assert stage.supervisor.become([good(), motor(1)]) == []
        assert stage.supervisor.become([good(), motor(2)]) == ["motor"]
        await stage.until(lambda: ("motor.on", 2) in turns(stage))

        assert turns(stage) == [("motor.on", 1), ("motor.off", 1), ("motor.on", 2)]
        assert stage.supervisor.plugins["good"].run is run
        assert stage.supervisor.plugins["motor"].counters.events == 3, "it counts on"


async def test_a_plugin_is_switched_off_on_and_taken_away() -> None:
    async with supervised(Good) as stage:
        await stage.until(lambda: stage.state("good") is PluginState.RUNNING)
        stage.supervisor.become([motor(1)])
        assert list(stage.supervisor.plugins) == ["motor"]
        await stage.until(lambda: turns(stage))
        stage.supervisor.become([PluginSection("motor")])
        await stage.until(lambda: ("motor", PluginState.DISABLED) in stage.states)
        assert turns(stage)[-1] == ("motor.off", 1)
        stage.supervisor.become([motor(3)])
        await stage.until(lambda: turns(stage)[-1] == ("motor.on", 3))


@pytest.mark.parametrize("error", [RetryError("no"), ValueError("a bug"), FatalError("never")])
async def test_what_a_plugin_says_to_its_end_brings_it_not_back(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(Motor, "last_words", error)
    async with supervised() as stage:
        stage.supervisor.become([motor(1)])
        await stage.until(lambda: turns(stage))
        stage.supervisor.become([motor(2)])
        await stage.until(lambda: ("motor.on", 2) in turns(stage))
        stage.supervisor.become([PluginSection("motor")])
        await stage.until(lambda: ("motor", PluginState.DISABLED) in stage.states)
        assert turns(stage)[2:] == [("motor.on", 2), ("motor.off", 2)]


async def test_two_runs_of_a_plugin_never_overlap_however_often_its_settings_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HAND_OVER_S", 0.01)
    let_go = asyncio.Event()
    monkeypatch.setattr(Motor, "holds_on", let_go)
    async with supervised() as stage:
        stage.supervisor.become([motor(1)])
        await stage.until(lambda: turns(stage))
        for speed in (2, 3, 4):
            stage.supervisor.become([motor(speed)])
            await stage.until(lambda: stage.state("motor") is PluginState.STUCK)
        assert "does not end" in stage.supervisor.plugins["motor"].reason
        assert turns(stage) == [("motor.on", 1)]
        let_go.set()
        await stage.until(lambda: len(turns(stage)) == 3)
        assert turns(stage) == [("motor.on", 1), ("motor.off", 1), ("motor.on", 4)]
