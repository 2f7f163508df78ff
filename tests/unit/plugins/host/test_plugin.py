from __future__ import annotations

import asyncio
import os
import time
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nexus_agent.plugin import EmitError, Quality, Stream
from nexus_agent.testing import RecordingContext, running
from nexus_plugins.host import HostPlugin, HostSettings
from nexus_plugins.host.clock import synchronised


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    return HostSettings(interval_s=1, state_path=tmp_path)


async def test_the_first_event_comes_at_once_with_this_machines_values(tmp_path: Path) -> None:
    context = RecordingContext(HostSettings(interval_s=3600, state_path=tmp_path))

    async with running(HostPlugin(context)):
        (found,) = await context.wait_for("host.metrics")

    disk = os.statvfs(tmp_path)
    assert 0 <= found["cpu"]["value"] <= 100
    assert found["uptime"]["value"] == pytest.approx(
        time.clock_gettime(time.CLOCK_BOOTTIME), abs=30
    )
    assert found["disk_state_free"]["value"] == pytest.approx(
        disk.f_bavail * disk.f_frsize / 1e6, rel=0.2
    )
    assert found["disk_read_rate"]["quality"] in {"ok", "absent"}


async def test_events_are_handed_over_as_telemetry_at_the_interval(
    settings: HostSettings,
) -> None:
    context = RecordingContext(settings)

    async with running(HostPlugin(context)):
        first, second = await context.wait_for("host.metrics", 2)

    assert {(event.stream, event.promised) for event in context.events} == {
        (Stream.TELEMETRY, False)
    }
    assert second["uptime"]["value"] - first["uptime"]["value"] in {0, 1, 2}


async def test_a_changed_interval_counts_at_once(tmp_path: Path) -> None:
    context = RecordingContext(HostSettings(interval_s=3600, state_path=tmp_path))

    async with running(HostPlugin(context)):
        await context.wait_for("host.metrics")
        context.become(HostSettings(interval_s=1, state_path=tmp_path))
        await context.wait_for("host.metrics", 3)


async def test_every_value_has_a_unit_and_a_quality_and_null_only_where_it_is_not_ok(
    settings: HostSettings,
) -> None:
    context = RecordingContext(settings)

    async with running(HostPlugin(context)):
        (found,) = await context.wait_for("host.metrics")

    for name, entry in found.items():
        assert set(entry) == {"value", "unit", "quality"}, name
        assert entry["unit"], name
        assert (entry["value"] is None) == (Quality(entry["quality"]) is not Quality.OK), name


async def test_a_path_that_is_not_there_is_absent(tmp_path: Path) -> None:
    context = RecordingContext(HostSettings(state_path=tmp_path / "gone"))

    async with running(HostPlugin(context)):
        (found,) = await context.wait_for("host.metrics")

    assert found["disk_state"] == {"value": None, "unit": "%", "quality": "absent"}


async def test_ignored_interfaces_are_left_out(tmp_path: Path) -> None:
    context = RecordingContext(HostSettings(state_path=tmp_path, ignored_interfaces=("*",)))

    async with running(HostPlugin(context)):
        (found,) = await context.wait_for("host.metrics")

    assert not [name for name in found if name.startswith("net_")]


class FullContext(RecordingContext[HostSettings]):
    """A box that takes nothing at first."""

    def __init__(self, settings: HostSettings) -> None:
        super().__init__(settings)
        self.refused = asyncio.Event()

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        if not self.refused.is_set():
            self.refused.set()
            raise EmitError("the disk is full")
        super().hand_over(event_type, data, stream=stream)


async def test_a_full_box_costs_a_reading_and_not_the_plugin(settings: HostSettings) -> None:
    context = FullContext(settings)

    async with running(HostPlugin(context)):
        await context.wait_for("host.metrics")

    assert context.refused.is_set()
    assert context.reports


def test_the_timesync_marker_is_believed(tmp_path: Path) -> None:
    marker = tmp_path / "synchronized"
    marker.touch()

    assert synchronised(marker) is True


def test_without_the_marker_the_kernel_decides(tmp_path: Path) -> None:
    assert synchronised(tmp_path / "none") in {True, False, Quality.ABSENT, Quality.REFUSED}


def test_the_sample_is_what_the_defaults_are() -> None:
    text = files("nexus_plugins.host").joinpath("sample.toml").read_text()
    section = tomllib.loads(text)["plugins"]["host"]

    assert section.pop("enabled") is True
    assert HostSettings(**section) == HostSettings()


async def test_the_readme_names_every_value(settings: HostSettings) -> None:
    readme = files("nexus_plugins.host").joinpath("README.md").read_text()
    context = RecordingContext(settings)

    async with running(HostPlugin(context)):
        (found,) = await context.wait_for("host.metrics")

    plain = [name for name in found if not name.startswith(("net_", "temperature_"))]
    assert [name for name in plain if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("interval", [0, 0.5, -1, 86_401, "often"])
def test_an_interval_that_makes_no_sense_is_refused(interval: object) -> None:
    with pytest.raises(ValidationError, match="interval_s"):
        HostSettings.model_validate({"interval_s": interval})
