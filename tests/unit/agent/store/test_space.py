"""The quota: what goes first, what is written down about it, and what is never touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.store.boxed import HOUR, Hours

from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream

QUOTA = 2_000_000
NOISE = 40_000
ENOUGH = 60
"""Segments of NOISE bytes that are more than QUOTA takes."""


def used(folder: Path) -> int:
    """Bytes of the database, its log and the reserve."""
    names = ("agent.db", "agent.db-wal", "reserve")
    return sum((folder / name).stat().st_size for name in names if (folder / name).exists())


async def test_the_files_never_take_more_than_the_quota(opened: Any, state_dir: Path) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(2 * ENOUGH):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
            assert used(state_dir) <= QUOTA
        assert used(state_dir) > QUOTA // 2


async def test_delivered_events_go_first_and_are_no_loss(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(10):
            await store.fill(Stream.EVENT, NOISE, seed=n)
        await store.acknowledge(10)
        for n in range(28):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
        assert len(await store.events(Stream.EVENT)) < 10
        assert await store.losses() == []
        assert len(await store.waiting(Stream.TELEMETRY)) == 28


async def test_what_waits_goes_oldest_first_and_is_written_down(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(ENOUGH):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
        left = [event.seq for event in await store.waiting(Stream.TELEMETRY)]
        assert left == list(range(left[0], ENOUGH + 1))
        assert left[0] > 1
        assert await store.losses() == [("telemetry", 1, 1, left[0] - 1, "disk quota")]


async def test_logs_go_before_telemetry_before_events_before_alerts(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        order = [Stream.ALERT, Stream.EVENT, Stream.TELEMETRY, Stream.LOG]
        for stream in order:
            for n in range(8):
                await store.fill(stream, NOISE, seed=n)
        gone: list[str] = []
        for n in range(4 * ENOUGH):
            await store.fill(Stream.ALERT, NOISE, seed=n)
            first = {name for name, *_ in await store.losses()}
            gone += sorted(first - set(gone))
        assert gone == ["log", "telemetry", "event", "alert"]


async def test_what_is_less_urgent_than_all_the_rest_is_not_taken(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(ENOUGH):
            await store.fill(Stream.EVENT, NOISE, seed=n)
        before = await store.losses()
        with pytest.raises(EmitError, match="more urgent than log"):
            await store.fill(Stream.LOG, 5 * NOISE)
        assert await store.losses() == before


async def test_the_console_is_told_of_a_loss_with_its_times(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(ENOUGH):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
        [told] = await store.told()
        assert told["first_time"] == told["last_time"]
        [(_, _, first, last, cause)] = await store.losses()
        assert (told["stream"], told["first"], told["last"]) == ("telemetry", first, last)
        assert told["cause"] == cause
        assert await store.outbox.report_losses() == 0


async def test_an_alert_that_told_of_a_loss_and_is_dropped_itself_is_told_anew(
    opened: Any,
) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(ENOUGH):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
        assert len(await store.told()) == 1
        for n in range(2 * ENOUGH):
            await store.fill(Stream.ALERT, NOISE, seed=n)
        told = await store.told()
        assert {"telemetry", "alert"} <= {loss["stream"] for loss in told}


async def test_numbering_never_goes_back_over_what_was_dropped(opened: Any) -> None:
    async with opened(quota=QUOTA) as store:
        await store.fill(Stream.TELEMETRY, NOISE)
        for n in range(2 * ENOUGH):
            await store.fill(Stream.EVENT, NOISE, seed=n)
        assert await store.waiting(Stream.TELEMETRY) == []
        following = store.outbox.position(Stream.TELEMETRY)[1]
    async with opened(quota=QUOTA) as store:
        assert store.outbox.position(Stream.TELEMETRY)[1] == following
        assert store.outbox.epoch == 1


async def test_a_lowered_quota_is_kept_after_the_next_round(opened: Any, state_dir: Path) -> None:
    async with opened() as store:
        for n in range(2 * ENOUGH):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
    async with opened(quota=QUOTA) as store:
        await store.tidy()
        await store.fill(Stream.EVENT, NOISE)
    assert used(state_dir) <= QUOTA


async def test_space_that_is_free_goes_back_to_the_disk(opened: Any, state_dir: Path) -> None:
    async with opened() as store:
        for n in range(500):
            await store.fill(Stream.TELEMETRY, 2 * NOISE, seed=n)
        large = used(state_dir)
        await store.acknowledge(500, Stream.TELEMETRY)
        await store.tidy(hours=0, megabytes=0)
    assert used(state_dir) < large // 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "nexus-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def stuff(folder: Path) -> Path:
    """Fill the file system up; return the file that does it."""
    stuffing = folder / "stuffing"
    with stuffing.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(65536)):
            pass
    return stuffing


async def test_a_full_disk_costs_nothing_promised_and_recovers_by_itself(
    opened: Any, small_disk: Path
) -> None:
    async with opened(small_disk) as store:
        await store.emit(*range(5))
        stuffing = stuff(small_disk)
        taken = 5
        with pytest.raises(EmitError, match="full"):  # noqa: PT012 - the reserve takes some
            for n in range(1000):
                await store.fill(Stream.EVENT, NOISE, seed=n)
                taken += 1
        assert store.outbox.trouble is not None
        stuffing.unlink()
        await store.emit("after")
        assert store.outbox.trouble is None
        assert [event.seq for event in await store.waiting()] == list(range(1, taken + 2))
        assert await store.losses() == []
        await store.emit("once more", stream=Stream.ALERT)
        [alarm] = [e for e in await store.events(Stream.ALERT) if e.type == "storage.alarm"]
        assert alarm.data["refused_events"] == 1


async def test_a_full_disk_gives_up_delivered_events(opened: Any, small_disk: Path) -> None:
    async with opened(small_disk) as store:
        for n in range(40):
            await store.fill(Stream.EVENT, NOISE, seed=n)
        await store.acknowledge(40)
        await store.outbox.save()
        stuff(small_disk)
    async with opened(small_disk, deadline_s=5.0) as store:
        for n in range(60):
            await store.fill(Stream.EVENT, NOISE // 2, seed=n)
        assert [event.seq for event in await store.waiting()] == list(range(41, 101))


async def test_history_that_goes_at_once_does_not_pass_the_quota_either(
    opened: Any, state_dir: Path
) -> None:
    """SQLite may overwrite what it deletes, and writes all of that to its log."""
    async with opened(quota=QUOTA) as store:
        for n in range(28):
            await store.fill(Stream.EVENT, NOISE, seed=n)
        await store.acknowledge(28)
        await store.database.tend(lambda c: c.execute("PRAGMA secure_delete=1").fetchall())
        await store.tidy(megabytes=0)
        assert await store.events(Stream.EVENT) == []
        assert used(state_dir) <= QUOTA
        assert (state_dir / "agent.db-wal").stat().st_size <= store.database.space.log_bytes


async def test_what_expires_at_once_does_not_pass_the_quota_either(
    opened: Any, state_dir: Path
) -> None:
    async with opened(quota=QUOTA) as store:
        for n in range(28):
            await store.fill(Stream.TELEMETRY, NOISE, seed=n)
        await store.database.tend(lambda c: c.execute("PRAGMA secure_delete=1").fetchall())
        store.clock.wall += 2 * HOUR
        await store.tidy(ttl=Hours(telemetry=1))
        assert await store.losses() == [("telemetry", 1, 1, 28, "older than its time to live")]
        assert (state_dir / "agent.db-wal").stat().st_size <= store.database.space.log_bytes
