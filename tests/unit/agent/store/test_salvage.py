"""A damaged, lost or restored database: what is saved, what is declared, no number twice."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.store.boxed import HOUR

from nexus_agent.clock import BUILT, Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream
from nexus_agent.store import positions
from nexus_agent.store.carve import carve
from nexus_agent.store.errors import DamagedError, StoreError

PAGE = 4096


def shake(file: Path, page: int, seed: int) -> None:
    """Overwrite one page with noise."""
    noise = random.Random(seed).randbytes(PAGE)
    with file.open("r+b") as data:
        data.seek(page * PAGE)
        data.write(noise)


async def filled(opened: Any, count: int = 60) -> list[tuple[int, Any]]:
    """A box with large and small segments; what it promised, by sequence."""
    async with opened() as store:
        for n in range(count // 2):
            await store.fill(Stream.EVENT, 9000, seed=n)
        await store.emit(*range(count // 2))
        return [(event.seq, event.data) for event in await store.events()]


@pytest.mark.parametrize("seed", range(6))
async def test_what_a_damaged_page_does_not_hold_is_saved(
    opened: Any, state_dir: Path, seed: int
) -> None:
    promised = await filled(opened)
    file = state_dir / "agent.db"
    shake(file, random.Random(seed).randrange(1, file.stat().st_size // PAGE), seed)
    async with opened() as store:
        try:
            await store.waiting()
        except StoreError:
            await store.outbox.heal()
        left = [(event.seq, event.data) for event in await store.waiting() if event.epoch == 1]
        lost = {n for _, _, first, last, _ in await store.losses() for n in range(first, last + 1)}
        saved = [one for one in promised if one[0] not in lost]
        assert left[: len(saved)] == saved
        assert len(lost) < len(promised) // 2


@pytest.mark.parametrize("page", [0, 1, 2])
async def test_the_first_pages_may_be_gone(opened: Any, state_dir: Path, page: int) -> None:
    promised = await filled(opened)
    shake(state_dir / "agent.db", page, 1)
    async with opened() as store:
        await store.emit("goes on")
        left = {(event.seq, event.data) for event in await store.waiting() if event.epoch == 1}
        assert len(left & set(promised)) >= len(promised) - 2


async def test_a_file_that_is_no_database_begins_a_new_epoch(opened: Any, state_dir: Path) -> None:
    await filled(opened)
    (state_dir / "agent.db").write_bytes(b"x" * 8192)
    async with opened() as store:
        await store.emit("goes on")
        assert store.outbox.epoch > 1
        assert ("event", 1, 1, 60) in {loss[:4] for loss in await store.losses()}
        assert await store.database.read("PRAGMA auto_vacuum") == [(2,)]
    assert (state_dir / "agent.db.damaged-1").read_bytes() == b"x" * 8192


async def test_what_is_only_in_the_write_ahead_log_is_saved_too(
    opened: Any, state_dir: Path, tmp_path: Path
) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with opened() as store:
        await store.emit(*range(10))
        for name in ("agent.db", "agent.db-wal", "guard.json"):
            shutil.copy(state_dir / name, crashed)
    shake(crashed / "agent.db", 0, 1)
    async with opened(crashed) as store:
        assert [event.data for event in await store.waiting()] == list(range(10))


@pytest.mark.parametrize(
    "rot",
    [
        "UPDATE epoch SET number=5 WHERE number=1",
        "UPDATE position SET stream=x'00' WHERE stream='event'",
        "UPDATE position SET epoch=7",
        "UPDATE position SET final=2 WHERE epoch=1",
        "UPDATE position SET final=NULL WHERE epoch=1",
        "DELETE FROM position WHERE epoch=1 AND stream='event'",
        "INSERT INTO loss VALUES (9, 'evnt', 1, 1, 2, 0, 0, 'disk quota', NULL)",
        "INSERT INTO loss VALUES (9, 'event', 1, 'one', 2, 0, 0, 'disk quota', NULL)",
    ],
)
async def test_small_tables_that_cannot_be_right_hide_no_event(
    opened: Any, state_dir: Path, rot: str
) -> None:
    """SQLite takes a damaged row for a row: it has no checksums."""
    async with opened() as store:
        await store.emit(*range(6))
        await store.outbox.renew("a test")
        await store.emit(*range(6, 10))
    with contextlib.closing(sqlite3.connect(state_dir / "agent.db")) as beside, beside:
        beside.execute(rot)
    async with opened() as store:
        assert [event.data for event in await store.waiting()] == list(range(10))
        await store.emit("goes on")
        newest = (await store.waiting())[-1]
        assert (newest.data, newest.epoch > 2) == ("goes on", True)
    async with opened() as store:
        assert len(await store.waiting()) == 11


async def test_what_the_log_held_before_it_began_anew_hides_nothing(
    opened: Any, state_dir: Path
) -> None:
    """Its old frames stay behind the new ones, with pages that are used again meanwhile."""
    async with opened() as store:
        for n in range(12):
            await store.fill(Stream.EVENT, 9000, seed=n)
        await store.acknowledge(12)
        await store.tidy(megabytes=0)
        await store.database.tend(lambda c: c.execute("PRAGMA wal_checkpoint(RESTART)").fetchall())
        await store.fill(Stream.EVENT, 30_000, seed=13)
        found = {
            one.segment.first for one in carve(state_dir / "agent.db", state_dir / "agent.db-wal")
        }
        assert 13 in found


async def test_a_schema_with_another_word_in_it_is_damage(opened: Any, state_dir: Path) -> None:
    promised = await filled(opened)
    with contextlib.closing(sqlite3.connect(state_dir / "agent.db")) as beside, beside:
        beside.execute("ALTER TABLE segment_event RENAME COLUMN payload TO qayload")
    async with opened() as store:
        with pytest.raises(EmitError):
            await store.emit("too early")
        await store.outbox.heal()
        assert [(event.seq, event.data) for event in await store.waiting()] == promised


@pytest.mark.parametrize(
    "harm", ["DELETE FROM alembic_version", "UPDATE alembic_version SET version_num = 'x002'"]
)
async def test_a_schema_without_its_revision_is_damage(
    opened: Any, state_dir: Path, harm: str
) -> None:
    promised = await filled(opened)
    with contextlib.closing(sqlite3.connect(state_dir / "agent.db")) as beside, beside:
        beside.execute(harm)
    async with opened() as store:
        left = [(event.seq, event.data) for event in await store.waiting()]
        assert left == promised


async def test_state_and_positions_come_over(opened: Any, state_dir: Path) -> None:
    async with opened() as store:
        await store.emit(*range(20))
        await store.acknowledge(15)
        await store.database.run(
            lambda c: c.execute("INSERT INTO plugin_state VALUES ('obd', 'vin', '1')")
        )
    with sqlite3.connect(state_dir / "agent.db") as beside:
        page = beside.execute("SELECT rootpage FROM sqlite_master WHERE name='traffic'").fetchone()
    shake(state_dir / "agent.db", page[0] - 1, 1)
    async with opened() as store:
        with pytest.raises(Exception, match="malformed"):
            await store.database.run(lambda c: c.execute("SELECT * FROM traffic").fetchall())
        await store.outbox.heal()
        assert [event.seq for event in await store.waiting()] == [16, 17, 18, 19, 20]
        assert await store.database.read("SELECT value FROM plugin_state") == [("1",)]
        assert await store.losses() == []


async def test_a_flipped_bit_costs_one_segment_and_is_declared(
    opened: Any, state_dir: Path
) -> None:
    async with opened() as store:
        await store.emit(*range(3))
    with sqlite3.connect(state_dir / "agent.db") as beside:
        payload = bytearray(
            beside.execute("SELECT payload FROM segment_event WHERE last=2").fetchone()[0]
        )
        payload[len(payload) // 2] ^= 1
        beside.execute("UPDATE segment_event SET payload=? WHERE last=2", (bytes(payload),))
    beside.close()
    async with opened() as store:
        assert [event.seq for event in await store.waiting()] == [1, 3]
        assert await store.losses() == [("event", 1, 2, 2, "damaged on the disk")]
        assert [loss["last"] for loss in await store.told()] == [2]
    assert [file.name for file in (state_dir / "damaged").iterdir()] == ["event-1-2-2.segment"]


async def test_what_a_running_box_loses_with_its_newest_pages_is_declared(
    opened: Any, state_dir: Path
) -> None:
    """Memory knows how far the numbers had come; the guard file is written now and then only."""
    async with opened() as store:
        for n in range(20):
            await store.fill(Stream.EVENT, 9000, seed=n)
        await store.database.tend(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        file = state_dir / "agent.db"
        pages = file.stat().st_size // PAGE
        for page in range(pages - 6, pages):
            shake(file, page, 1)
        store.database.damage = DamagedError("a page is damaged")
        await store.outbox.heal()
        left = {event.seq for event in await store.waiting() if event.epoch == 1}
        lost = {n for _, _, first, last, _ in await store.losses() for n in range(first, last + 1)}
        assert lost
        assert left | lost == set(range(1, 21))


async def test_a_salvage_that_was_cut_off_begins_again(opened: Any, state_dir: Path) -> None:
    promised = await filled(opened)
    file = state_dir / "agent.db"
    shake(file, 0, 1)
    (state_dir / "agent.db.salvage").write_bytes(b"half of it")
    async with opened() as store:
        left = {(event.seq, event.data) for event in await store.waiting()}
        assert len(left & set(promised)) >= len(promised) - 2


async def test_a_salvage_that_was_cut_off_at_its_very_end_is_completed(
    opened: Any, state_dir: Path
) -> None:
    promised = await filled(opened)
    (state_dir / "agent.db").rename(state_dir / "agent.db.salvage")
    async with opened() as store:
        assert [(event.seq, event.data) for event in await store.waiting()] == promised


@pytest.mark.parametrize("renames", [1, 2])
async def test_a_salvage_that_fails_between_its_renames_is_completed(
    opened: Any, state_dir: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Beside, somebody reads: so the log stays when the database is closed, and is set aside."""
    rename, done = Path.rename, iter(range(100))

    def fail_later(self: Path, target: Path) -> Path:
        if next(done) == renames:
            raise OSError(errno.EIO, "the disk fails")
        return rename(self, target)

    async with opened() as store:
        await store.emit(*range(10))
        with contextlib.closing(sqlite3.connect(state_dir / "agent.db")) as beside:
            beside.execute("PRAGMA query_only=ON")
            beside.execute("SELECT * FROM epoch").fetchall()
            store.database.damage = DamagedError("as a test has it")
            with monkeypatch.context() as patch:
                patch.setattr(Path, "rename", fail_later)
                with pytest.raises(StoreError, match="the disk fails"):
                    await store.outbox.heal()
            left = state_dir.with_name("left")
            shutil.copytree(state_dir, left, ignore=shutil.ignore_patterns("*-shm"))
            await store.outbox.heal()
            assert [event.data for event in await store.waiting()] == list(range(10))
    async with opened(left) as store:
        assert [event.data for event in await store.waiting()] == list(range(10))


async def test_nothing_is_numbered_before_a_salvaged_database_could_be_read(
    opened: Any, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as store:
        await store.emit(1)
        store.database.damage = DamagedError("as a test has it")
        with monkeypatch.context() as patch:
            patch.setattr(positions, "load", _fail)
            with pytest.raises(StoreError, match="disk I/O error"):
                await store.outbox.heal()
        with pytest.raises(EmitError):
            await store.emit("too early")
        await store.outbox.heal()
        await store.emit(2)
    async with opened() as store:
        assert [event.data for event in await store.waiting()] == [1, 2]


def _fail(*_: Any) -> None:
    raise sqlite3.OperationalError("disk I/O error")


async def test_what_is_committed_is_promised_though_the_log_cannot_be_cut(
    opened: Any, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened() as store:
        with monkeypatch.context() as patch:
            patch.setattr(store.database.space, "keep_log_short", _fail)
            await store.emit(1)
        await store.emit(2)
        assert [event.data for event in await store.waiting()] == [1, 2]


async def test_a_lost_database_does_not_number_twice(opened: Any, state_dir: Path) -> None:
    async with opened() as store:
        await store.emit(*range(7))
    (state_dir / "agent.db").unlink()
    async with opened() as store:
        await store.emit("goes on")
        [event] = await store.waiting()
        assert (event.epoch, event.seq) == (2, 1)
        assert await store.losses() == [("event", 1, 1, 7, "lost with the database")]


async def test_a_database_from_a_backup_begins_a_new_epoch(
    opened: Any, state_dir: Path, tmp_path: Path
) -> None:
    async with opened() as store:
        await store.emit(*range(3))
    shutil.copy(state_dir / "agent.db", tmp_path / "backup")
    async with opened() as store:
        await store.emit(*range(4))
    shutil.copy(tmp_path / "backup", state_dir / "agent.db")
    async with opened() as store:
        await store.emit("goes on")
        assert [(e.epoch, e.seq) for e in await store.waiting()] == [(1, 1), (1, 2), (1, 3), (2, 1)]
        assert await store.losses() == [("event", 1, 4, 7, "lost with the database")]


@pytest.mark.parametrize("content", [b"", b"{", b'{"epoch": 0}', random.Random(7).randbytes(50)])
async def test_a_guard_file_that_cannot_be_read_is_written_anew(
    opened: Any, state_dir: Path, content: bytes
) -> None:
    async with opened() as store:
        await store.emit(1)
    (state_dir / "guard.json").write_bytes(content)
    async with opened() as store:
        assert store.outbox.epoch == 1
    assert b'"epoch":1' in (state_dir / "guard.json").read_bytes()


async def test_the_last_true_time_outlives_starts_in_1970(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is stored meanwhile, and however often the file is written."""
    true = BUILT + 1000 * HOUR
    wall, synced = [true], [True]
    monkeypatch.setattr("time.time_ns", lambda: wall[0])
    monkeypatch.setattr("nexus_agent.clock._synchronised", lambda _since: synced[0])
    async with opened(clock=Clock()) as store:
        await store.emit(1)
    wall[0], synced[0] = 0, False
    for n in range(3):
        clock = Clock()
        async with opened(clock=clock) as store:
            assert true <= clock.stamp().wall < true + HOUR
            await store.emit(n)
            await store.outbox.remember()
