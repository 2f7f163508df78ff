"""Numbering over epochs: what waits keeps its numbers, and every number is acknowledged apart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from nexus_agent.protocol import Ack, ProtocolError, Stream
from nexus_agent.store.segments import row_id


async def test_a_new_epoch_begins_at_one_and_what_waits_stays_where_it_is(opened: Any) -> None:
    async with opened() as store:
        await store.emit("a", "b")
        await store.outbox.renew("a test")
        await store.emit("c")
        found = [(e.epoch, e.seq, e.data) for e in await store.waiting()]
        assert found == [(1, 1, "a"), (1, 2, "b"), (2, 1, "c")]


async def test_it_is_above_what_the_console_knows(opened: Any) -> None:
    async with opened() as store:
        await store.outbox.renew("a test", above=7)
        assert store.outbox.epoch == 8


async def test_each_epoch_is_acknowledged_apart_and_remembered(opened: Any) -> None:
    async with opened() as store:
        await store.emit("a", "b")
        await store.outbox.renew("a test")
        await store.emit("c", "d")
        await store.acknowledge(1, epoch=2)
        assert store.outbox.released(Stream.EVENT) == row_id(1, 0)
        await store.acknowledge(2, epoch=1)
        assert store.outbox.released(Stream.EVENT) == row_id(2, 1)
    async with opened() as store:
        assert [(e.epoch, e.seq) for e in await store.waiting()] == [(2, 2)]
        assert store.outbox.positions.told()[1][Stream.EVENT] == 2


async def test_no_number_is_given_again_when_all_was_delivered_and_forgotten(
    opened: Any, state_dir: Path, tmp_path: Path
) -> None:
    """The acknowledgement is on the disk with the deletion, also when the power goes then."""
    async with opened() as store:
        await store.emit("a", "b")
        await store.acknowledge(2)
        await store.tidy(hours=0, megabytes=0)
        assert await store.events() == []
        for file in state_dir.glob("agent.db*"):
            shutil.copy(file, tmp_path)
    async with opened(tmp_path) as store:
        assert store.outbox.position(Stream.EVENT) == (2, 3)


async def test_a_closed_epoch_takes_no_acknowledgement_beyond_its_end(opened: Any) -> None:
    async with opened() as store:
        await store.emit("a")
        await store.outbox.renew("a test")
        with pytest.raises(ProtocolError, match="only 1 were ever sealed"):
            await store.outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))


async def test_what_is_gone_from_the_history_is_declared_when_asked_for(opened: Any) -> None:
    async with opened() as store:
        await store.emit(*range(5))
        await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 2), (4, 4)])
        told = [(loss["first"], loss["last"], loss["cause"]) for loss in await store.told()]
        cause = "no longer in the box's history"
        assert told == [(1, 2, cause), (4, 4, cause)]


async def test_what_an_alert_told_of_losses_is_told_again_where_the_alert_is_gone(
    opened: Any,
) -> None:
    """A console restored from a backup asks for the alert, and the box does not have it either."""
    async with opened() as store:
        await store.emit(1, 2)
        await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 2)])
        [first] = await store.told()
        await store.outbox.declare_gone(Stream.ALERT, 1, [(1, 1)])
        again = [(loss["stream"], loss["first"], loss["last"]) for loss in (await store.told())[1:]]
        assert again == [("event", 1, 2), ("alert", 1, 1)]
        assert (first["stream"], first["last"]) == ("event", 2)


async def test_what_was_never_sealed_is_not_declared_gone(opened: Any) -> None:
    async with opened() as store:
        await store.emit("a")
        with pytest.raises(ProtocolError, match="not within 1 to 1"):
            await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 2)])
        assert await store.losses() == []


async def test_a_loss_that_is_known_is_told_again_when_asked_for(opened: Any) -> None:
    async with opened() as store:
        await store.emit(*range(5))
        await store.outbox.declare_gone(Stream.EVENT, 1, [(2, 3)])
        await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 4)])
        told = [(loss["first"], loss["last"]) for loss in await store.told()]
        assert sorted(told) == [(1, 1), (2, 3), (2, 4)]
        assert sorted(loss[2:4] for loss in await store.losses()) == [(1, 1), (2, 4)]


async def test_what_is_gone_is_told_later_where_nothing_can_be_written_now(opened: Any) -> None:
    async with opened() as store:
        await store.emit(*range(5))
        store.outbox.close()
        await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 2)])
    async with opened() as store:
        assert [(loss["first"], loss["last"]) for loss in await store.told()] == [(1, 2)]


async def test_only_closed_epochs_with_events_are_told_of(opened: Any) -> None:
    async with opened() as store:
        await store.outbox.renew("nothing in the first")
        await store.emit("a", "b")
        await store.outbox.renew("a test")
        at = store.outbox.positions
        assert list(at.told()) == [2]
        assert at.told_released() == {2: {Stream.EVENT: 0}}
        await store.acknowledge(2, epoch=2)
        assert at.told_released() == {}


def image(state_dir: Path, to: Path) -> Path:
    """The database as it is on the disk now, without the guard file."""
    to.mkdir()
    for file in state_dir.glob("agent.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, to)
    return to


def put_back(image: Path, state_dir: Path) -> None:
    for file in state_dir.glob("agent.db*"):
        file.unlink()
    for file in image.iterdir():
        shutil.copy(file, state_dir)


async def test_a_database_from_before_an_epoch_owes_the_end_of_its_own(
    opened: Any, state_dir: Path, tmp_path: Path
) -> None:
    async with opened() as store:
        await store.emit("a")
        old = image(state_dir, tmp_path / "old")
        await store.emit("b", "c")
        await store.outbox.renew("a test")
        await store.emit("d")
        await store.outbox.remember()
    put_back(old, state_dir)
    async with opened() as store:
        assert store.outbox.epoch == 3
        assert [event.data for event in await store.waiting()] == ["a"]
        lost = [(loss[1], loss[2], loss[3]) for loss in await store.losses()]
        assert sorted(lost) == [(1, 2, 3), (2, 1, 1)]
        assert {e: f[Stream.EVENT] for e, f in store.outbox.positions.told().items()} == {
            1: 3,
            2: 1,
        }


async def test_a_database_that_is_put_back_twice_owes_it_twice(
    opened: Any, state_dir: Path, tmp_path: Path
) -> None:
    async with opened() as store:
        await store.emit("a")
        old = image(state_dir, tmp_path / "old")
        await store.emit("b", "c")
        await store.outbox.remember()
    for epoch in (2, 3):
        put_back(old, state_dir)
        async with opened() as store:
            assert store.outbox.epoch == epoch
            assert (1, 2, 3) in [(loss[1], loss[2], loss[3]) for loss in await store.losses()]
