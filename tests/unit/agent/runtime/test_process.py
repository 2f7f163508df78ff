"""Plugins in processes of their own: whatever one does, it hurts nobody, and one reads why."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.runtime.stage import POLICY, Stage, supervised

from nexus_agent import discovery
from nexus_agent.plugin import NoArgs, PluginError
from nexus_agent.runtime import process, usage
from nexus_agent.runtime.confine import landlock_version
from nexus_agent.runtime.description import AnyArgs
from nexus_agent.runtime.states import PluginState
from nexus_agent.sections import Isolation, Limits, PluginSection
from nexus_agent.testing import MemoryState

BUNDLES = Path(__file__).parents[3] / "plugins"
NEIGHBOUR = PluginSection(
    "neighbour", discovery.bundle(BUNDLES / "neighbour"), Isolation.PROCESS, source="agent.toml"
)


def hostile(deed: str, limits: Limits | None = None, **keys: Any) -> PluginSection:
    code = discovery.bundle(BUNDLES / "hostile")
    found = limits or Limits()
    return PluginSection(
        "hostile", code, Isolation.PROCESS, found, {"deed": deed, **keys}, source="agent.toml"
    )


def count(stage: Stage) -> int:
    return len(stage.sink.of("neighbour"))


async def goes_on(stage: Stage) -> None:
    """The neighbour, undisturbed and without a gap."""
    before = count(stage)
    await stage.until(lambda: count(stage) > before + 3)
    assert stage.sink.of("neighbour") == list(range(1, count(stage) + 1))
    assert stage.item("neighbour").restarts == 0


async def fails(stage: Stage, words: str, within: float = 40) -> None:
    """The hostile one does, for that reason, and is restarted; its neighbour goes on."""
    item = stage.item("hostile")
    await stage.until(lambda: item.restarts > 0, within)
    await stage.until(lambda: any(words in change.reason for change in stage.changes))
    assert any(change.alarming for change in stage.changes)
    await goes_on(stage)


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("raise", "ZeroDivisionError: a bug"),
        ("retry", "the adapter is gone"),
        ("exit", "SystemExit: 3"),
        ("segfault", "its process was ended by SIGSEGV"),
        ("die", "its process left with code 7"),
        ("leak", "MemoryError"),
        ("fork", "PermissionError: [Errno 1] Operation not permitted"),
        ("files", "Too many open files"),
    ],
)
async def test_what_breaks_is_restarted_and_says_why(deed: str, words: str) -> None:
    async with supervised(NEIGHBOUR, hostile(deed)) as stage:
        await fails(stage, words)


async def test_the_place_of_a_segfault_is_told() -> None:
    async with supervised(NEIGHBOUR, hostile("segfault")) as stage:
        await fails(stage, "hostile_plugin.py")
        assert "in _segfault" in stage.item("hostile").last_error


@pytest.mark.parametrize("deed", ["spin", "block"])
async def test_one_whose_loop_stands_still_is_ended_where_it_stood(
    deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PING_S", 0.1)
    monkeypatch.setattr(process, "HUNG_S", 2.0)
    async with supervised(NEIGHBOUR, hostile(deed)) as stage:
        await fails(stage, "its event loop stands still for 2 s at")
        assert f"in _{deed}" in stage.item("hostile").last_error


async def test_one_that_takes_more_of_a_processor_than_it_may_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "PING_S", 0.1)
    monkeypatch.setattr(usage, "CPU_WINDOW_S", 2.0)
    async with supervised(NEIGHBOUR, hostile("busy", Limits(cpu_percent=20))) as stage:
        await fails(stage, "it may take 20 % (limits.cpu_percent)")


async def test_one_that_fills_the_disk_with_temporary_files_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "PING_S", 0.1)
    async with supervised(NEIGHBOUR, hostile("temporary", Limits(temporary_mb=10))) as stage:
        await fails(stage, "they may take 10 MB (limits.temporary_mb)")


@pytest.mark.parametrize(
    ("deed", "state", "reason"),
    [
        ("return", PluginState.STOPPED, "its work is done"),
        ("fatal", PluginState.FAILED, "there is no such port"),
        ("group", PluginState.FAILED, "there is no such port"),
    ],
)
async def test_what_is_final_is_final(deed: str, state: PluginState, reason: str) -> None:
    async with supervised(NEIGHBOUR, hostile(deed)) as stage:
        await stage.until(lambda: stage.state("hostile") is state)
        assert (stage.item("hostile").reason, stage.item("hostile").restarts) == (reason, 0)
        await goes_on(stage)


async def test_a_flood_is_taken_as_far_as_is_allowed_and_the_rest_is_counted() -> None:
    async with supervised(NEIGHBOUR, hostile("flood", Limits(events_s=100), count=50_000)) as stage:
        await stage.until(lambda: ("hostile", "hostile.done", 0) in stage.sink.events, 60)
        counters = stage.item("hostile").counters
        assert counters.events + counters.refused == 50_002
        assert counters.events < 10_000
        await goes_on(stage)


async def test_one_that_ignores_its_cancellation_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.5)
    async with supervised(NEIGHBOUR, hostile("ignore")) as stage:
        await stage.until(lambda: stage.sink.of("hostile"))
        (pid,) = stage.sink.of("hostile")
        stage.supervisor.stop("hostile", "a test")
        await stage.until(lambda: not Path(f"/proc/{pid}").exists())
        assert stage.state("hostile") is PluginState.STOPPED
        await goes_on(stage)


async def test_one_that_fills_its_quota_or_emits_garbage_is_told_and_goes_on() -> None:
    async with supervised(NEIGHBOUR, hostile("garbage")) as stage:
        await stage.until(lambda: len(stage.sink.of("hostile")) == 2)
        assert len(stage.sink.of("hostile")[1]) == 5
        assert stage.state("hostile") is PluginState.RUNNING
        await goes_on(stage)


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
async def test_it_opens_what_its_settings_name_and_no_secrets(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text("hello")
    async with supervised(NEIGHBOUR, hostile("peek", path=str(allowed))) as stage:
        await stage.until(lambda: len(stage.sink.of("hostile")) == 2)
        found, environment = stage.sink.of("hostile")[1]
        assert found == {
            str(allowed): 5,
            "/etc/shadow": "Permission denied",
            f"/proc/{os.getpid()}/environ": "Permission denied",
        }
        assert set(environment) <= {
            *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOST_PROC", "HOST_CLOCK"),
            *("HOME", "TMPDIR", "MALLOC_ARENA_MAX"),
        }


def test_paths_in_tables_of_settings_are_granted_too() -> None:
    keys = {
        "port": "/dev/ttyUSB0",
        "adapters": {"one": {"port": "/dev/ttyUSB1", "baudrate": 9600}},
        "folders": [{"path": "/srv/reports"}, "/var/lib/nexus/secret"],
    }
    paths = process.granted(keys, (Path("/var/lib/nexus"),))
    assert paths == ["/dev/ttyUSB0", "/dev/ttyUSB1", "/srv/reports"]


async def test_it_signals_nobody() -> None:
    async with supervised(NEIGHBOUR, hostile("kill")) as stage:
        await stage.until(lambda: len(stage.sink.of("hostile")) == 2)
        assert stage.sink.of("hostile")[1] == "Operation not permitted"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "agent.toml: plugins.hostile.deed: is missing"),
        ({"deed": "raise", "ded": 1}, "agent.toml: plugins.hostile.ded: unknown key"),
    ],
)
async def test_wrong_settings_are_its_problem_alone(keys: dict[str, Any], reason: str) -> None:
    wrong = PluginSection(
        "hostile",
        discovery.bundle(BUNDLES / "hostile"),
        Isolation.PROCESS,
        keys=keys,
        source="agent.toml",
    )
    async with supervised(NEIGHBOUR, wrong) as stage:
        await stage.until(lambda: stage.state("hostile") is PluginState.FAILED)
        assert stage.item("hostile").reason.startswith(reason)
        await goes_on(stage)
        assert (await stage.supervisor.check([NEIGHBOUR, wrong])) is None, "it is there already"


async def test_other_settings_are_tried_out_before_they_are_taken() -> None:
    async with supervised(NEIGHBOUR) as stage:
        await stage.until(lambda: count(stage))
        wrong = PluginSection(
            NEIGHBOUR.name,
            NEIGHBOUR.code,
            Isolation.PROCESS,
            keys={"pause_s": "x"},
            source="agent.toml",
        )
        told = await stage.supervisor.check([wrong, hostile("no such key", more=1)])
        assert told is not None
        assert told.startswith("agent.toml: plugins.neighbour.pause_s: ")
        told = await stage.supervisor.check([NEIGHBOUR, hostile("raise", more=1)])
        assert told is not None
        assert told.startswith("agent.toml: plugins.hostile.more: unknown key")
        await goes_on(stage)


async def test_a_live_setting_changes_within_a_second_and_the_process_stays() -> None:
    slow = PluginSection(
        "neighbour", NEIGHBOUR.code, Isolation.PROCESS, keys={"pause_s": 600}, source="agent.toml"
    )
    async with supervised(slow) as stage:
        await stage.until(lambda: count(stage) == 1)
        pids = stage.supervisor.pids()
        assert stage.supervisor.become([NEIGHBOUR]) == ["neighbour"]
        await stage.until(lambda: count(stage) > 3, within=1)
        assert stage.supervisor.pids() == pids
        await goes_on(stage)


async def test_a_command_runs_there_and_tells_its_progress() -> None:
    async with supervised(NEIGHBOUR, hostile("ignore")) as stage:
        await stage.until(lambda: count(stage) and stage.sink.of("hostile"))
        told: list[str] = []
        assert await stage.supervisor.invoke("neighbour.wait", NoArgs(), told.append) == "done"
        assert told == ["half way"]
        with pytest.raises(PluginError, match="it broke: ZeroDivisionError: no"):
            await stage.supervisor.invoke("hostile.stumble", NoArgs(), told.append)
        wrong = AnyArgs.model_validate({"speed": 3})
        with pytest.raises(PluginError, match="speed: Extra inputs are not permitted"):
            await stage.supervisor.invoke("neighbour.wait", wrong, told.append)


async def test_its_state_outlives_it() -> None:
    kept: dict[str, MemoryState] = {}
    async with supervised(NEIGHBOUR, kept=kept) as stage:
        await stage.until(lambda: count(stage) > 3)
    async with supervised(NEIGHBOUR, kept=kept) as again:
        await again.until(lambda: count(again))
        assert again.sink.of("neighbour")[0] >= 4


async def test_nothing_is_left_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with supervised(NEIGHBOUR, hostile("raise"), policy=POLICY) as stage:
        await stage.until(lambda: stage.state("hostile") is PluginState.QUARANTINED, 60)
        pids = stage.supervisor.pids()
        assert len(pids) == 1
        assert len(list(tmp_path.iterdir())) == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(tmp_path.iterdir()) == []
    await asyncio.sleep(0)
