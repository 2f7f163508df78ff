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


async def test_what_was_never_sealed_is_not_declared_gone(opened: Any) -> None:
    async with opened() as store:
        await store.emit("a")
        with pytest.raises(ProtocolError, match="not within 1 to 1"):
            await store.outbox.declare_gone(Stream.EVENT, 1, [(1, 2)])
        assert await store.losses() == []
