from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nexus_agent.testing import MemoryState, RecordingContext, running
from nexus_plugins.example import ExamplePlugin, ExampleSettings

Context = RecordingContext[ExampleSettings]


def context_for(folder: Path, state: MemoryState | None = None, **settings: Any) -> Context:
    given = {"interval_s": 0.1, **settings}
    return RecordingContext(ExampleSettings(folder=folder, **given), state=state)


async def until_reported(context: Context, words: str) -> None:
    async with asyncio.timeout(10):
        while not context.reports or words not in context.reports[-1]:
            await asyncio.sleep(0.01)


async def test_files_are_counted_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "b.pdf").mkdir()
    context = context_for(tmp_path)

    async with running(ExamplePlugin(context)):
        [found] = await context.wait_for("example.files")

    assert found == {
        "folder": str(tmp_path),
        "pattern": "*",
        "value": 1,
        "unit": "1",
        "quality": "ok",
    }
    assert context.events[0].promised


async def test_only_names_that_match_the_pattern_count(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "a.txt").touch()
    context = context_for(tmp_path, pattern="*.pdf")

    async with running(ExamplePlugin(context)):
        [found] = await context.wait_for("example.files")

    assert found["value"] == 1


async def test_a_change_is_told_and_no_change_is_not(tmp_path: Path) -> None:
    context = context_for(tmp_path)

    async with running(ExamplePlugin(context)):
        await until_reported(context, "0 files")
        looks = len(context.reports)
        while len(context.reports) < looks + 3:
            await asyncio.sleep(0.01)
        (tmp_path / "a.pdf").touch()
        found = await context.wait_for("example.files", 2)

    assert [event["value"] for event in found] == [0, 1]


async def test_what_was_told_before_a_restart_is_not_told_again(tmp_path: Path) -> None:
    state = MemoryState()
    first, second = context_for(tmp_path, state), context_for(tmp_path, state)
    async with running(ExamplePlugin(first)):
        await until_reported(first, "0 files")

    async with running(ExamplePlugin(second)):
        await until_reported(second, "0 files")

    assert second.events == []


async def test_a_live_setting_counts_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    context = context_for(tmp_path, interval_s=3600)

    async with running(ExamplePlugin(context)):
        await until_reported(context, "1 files")
        context.become(ExampleSettings(folder=tmp_path, pattern="*.txt"))
        found = await context.wait_for("example.files", 2)

    assert [event["value"] for event in found] == [1, 0]


async def test_a_folder_that_is_not_there_is_absent(tmp_path: Path) -> None:
    context = context_for(tmp_path / "gone")

    async with running(ExamplePlugin(context)):
        await until_reported(context, "nothing to be counted (absent)")

    [found] = context.of("example.files")
    assert (found["value"], found["quality"]) == (None, "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
async def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    context = context_for(tmp_path)

    async with running(ExamplePlugin(context)):
        [found] = await context.wait_for("example.files")

    assert (found["value"], found["quality"]) == (None, "refused")


@pytest.mark.parametrize("wrong", [{"pattern": ""}, {"interval_s": 0}, {"folder": 3}, {"x": 1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExampleSettings.model_validate({"folder": "/srv", **wrong})
