"""The outbox on a real database: what `emit` promised is there, in order, once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import MAX_SEQUENCE, Ack, Event, ProtocolError, Stream, open_segment
from nexus_agent.store.buffer import BUFFER_BYTES, SEGMENT_EVENTS
from nexus_agent.store.database import FILE_NAME, Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id


@asynccontextmanager
async def opened(state_dir: Path, deadline_s: float = 10.0) -> AsyncIterator[Outbox]:
    database = Database(state_dir)
    await database.open()
    outbox = Outbox(database, "box-1", Clock(), deadline_s=deadline_s)
    await outbox.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="outbox")
        yield outbox
        outbox.close()
    await database.close()


async def stored(outbox: Outbox, stream: Stream = Stream.EVENT, after: int = 0) -> list[Event]:
    found = await outbox.held(stream, outbox.epoch, after + 1, MAX_SEQUENCE, 10_000)
    return [event for segment in found for event in open_segment(segment)]


async def test_an_emitted_event_is_on_disk_when_emit_returns(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("host.metrics", {"n": 1})], Stream.EVENT)
        beside = sqlite3.connect(state_dir / FILE_NAME)
        assert beside.execute("SELECT last, count FROM segment_event").fetchall() == [(1, 1)]
        beside.close()


async def test_events_that_come_together_share_a_segment(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(outbox.emit("host", [("a.b", n)], Stream.EVENT))
        assert len(await outbox.after(Stream.EVENT, 0, 100)) == 1
        assert [event.data for event in await stored(outbox)] == list(range(50))


async def test_many_events_are_cut_into_segments_of_bounded_size(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        count = SEGMENT_EVENTS * 2 + 1
        await outbox.emit("host", [("a.b", n) for n in range(count)], Stream.EVENT)
        sizes = [segment.count for segment in await outbox.after(Stream.EVENT, 0, 100)]
        assert sizes == [SEGMENT_EVENTS, SEGMENT_EVENTS, 1]
        assert [event.data for event in await stored(outbox)] == list(range(count))


async def test_large_events_are_cut_so_that_every_segment_opens(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        large = "x" * 250_000
        await outbox.emit("host", [("a.b", large)] * 100, Stream.EVENT)
        assert len(await stored(outbox)) == 100


async def test_each_stream_counts_for_itself(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", 1), ("a.b", 2)], Stream.EVENT)
        await outbox.emit("host", [("a.b", 3)], Stream.ALERT)
        assert outbox.position(Stream.EVENT) == (0, 3)
        assert outbox.position(Stream.ALERT) == (0, 2)


async def test_numbering_goes_on_after_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", 1)], Stream.EVENT)
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", 2)], Stream.EVENT)
        assert [(event.seq, event.data) for event in await stored(outbox)] == [(1, 1), (2, 2)]


async def test_a_handed_over_event_is_committed_at_the_latest_on_close(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        outbox.hand_over("host", "a.b", 1, Stream.TELEMETRY)
    async with opened(state_dir) as outbox:
        assert [event.data for event in await stored(outbox, Stream.TELEMETRY)] == [1]


async def test_a_closed_outbox_takes_nothing(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        outbox.close()
        with pytest.raises(EmitError, match="stopping"):
            await outbox.emit("host", [("a.b", 1)], Stream.EVENT)


async def test_many_that_are_handed_over_are_taken_whole_or_not_at_all(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        outbox.hand_over_many("host", [("a.b", n) for n in range(2500)], Stream.TELEMETRY)
        with pytest.raises(ProtocolError):
            outbox.hand_over_many("host", [("a.b", 1), ("a.b", object())], Stream.TELEMETRY)
    async with opened(state_dir) as outbox:
        assert [e.data for e in await stored(outbox, Stream.TELEMETRY)] == list(range(2500))


async def test_hand_over_refuses_when_too_much_waits(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        large = "x" * 200_000
        for _ in range(BUFFER_BYTES // 200_000 + 1):
            outbox.hand_over("host", "a.b", large, Stream.TELEMETRY)
        with pytest.raises(EmitError, match="dropped"):
            outbox.hand_over("host", "a.b", large, Stream.TELEMETRY)


async def test_emit_waits_when_too_much_waits_and_then_goes_on(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        large = "x" * 200_000
        for _ in range(BUFFER_BYTES // 200_000 + 1):
            outbox.hand_over("host", "a.b", large, Stream.TELEMETRY)
        await outbox.emit("host", [("a.b", "after")], Stream.TELEMETRY)
        assert (await stored(outbox, Stream.TELEMETRY))[-1].data == "after"


async def test_an_event_that_is_none_changes_nothing(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        with pytest.raises(ProtocolError):
            await outbox.emit("host", [("a.b", 1), ("a.b", object())], Stream.EVENT)
        assert outbox.position(Stream.EVENT) == (0, 1)


async def test_what_rides_along_is_committed_with_the_event(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit(
            "agent",
            [("a.b", 1)],
            Stream.EVENT,
            also=lambda c: c.execute("INSERT INTO plugin_state VALUES ('p', 'k', '1')"),
        )
        beside = sqlite3.connect(state_dir / FILE_NAME)
        assert beside.execute("SELECT count(*) FROM plugin_state").fetchone() == (1,)
        beside.close()


async def test_a_commit_that_fails_for_good_is_told_and_leaves_no_trace(
    state_dir: Path,
) -> None:
    async with opened(state_dir, deadline_s=0.0) as outbox:
        with pytest.raises(EmitError, match="no_such_table"):
            await outbox.emit(
                "agent",
                [("a.b", 1)],
                Stream.EVENT,
                also=lambda c: c.execute("INSERT INTO no_such_table VALUES (1)"),
            )
        await outbox.emit("agent", [("a.b", 2)], Stream.EVENT)
        assert [(event.seq, event.data) for event in await stored(outbox)] == [(1, 2)]


async def test_an_acknowledgement_releases_and_is_remembered(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        for n in range(3):
            await outbox.emit("host", [("a.b", n)], Stream.EVENT)
        outbox.sent(Stream.EVENT, row_id(1, 3))
        assert await outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))
        assert [s.pending_events for s in await outbox.status() if s.stream is Stream.EVENT] == [1]
    async with opened(state_dir) as outbox:
        assert outbox.position(Stream.EVENT) == (2, 4)


async def test_the_mark_passes_over_what_is_lost_behind_the_last_sent(state_dir: Path) -> None:
    """It is never sent, and the console acknowledges it for lost."""
    async with opened(state_dir) as outbox:
        for n in range(2):
            await outbox.emit("host", [("a.b", n)], Stream.EVENT)
        await outbox.write(
            lambda c: c.execute("DELETE FROM segment_event WHERE id=?", (row_id(1, 2),))
        )
        outbox.sent(Stream.EVENT, row_id(1, 1))
        assert await outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))
        assert outbox.position(Stream.EVENT) == (2, 3)


async def test_what_was_not_sent_is_not_released(state_dir: Path) -> None:
    """The broker may hold an acknowledgement for another disk with the same numbers."""
    async with opened(state_dir) as outbox:
        for n in range(3):
            await outbox.emit("host", [("a.b", n)], Stream.EVENT)
        outbox.sent(Stream.EVENT, row_id(1, 1))
        assert not await outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=3))
        assert outbox.position(Stream.EVENT) == (0, 4)
        assert outbox.refused_acknowledgements == 0


async def test_an_acknowledgement_of_the_future_is_refused_and_counted(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", 1)], Stream.EVENT)
        with pytest.raises(ProtocolError, match="refused"):
            await outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))
        assert outbox.position(Stream.EVENT) == (0, 2)
        assert outbox.refused_acknowledgements == 1


@pytest.mark.parametrize("ack", [(1, 0), (9, 1)])
async def test_an_old_or_foreign_acknowledgement_says_nothing_new(
    state_dir: Path, ack: tuple[int, int]
) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", 1)], Stream.EVENT)
        assert not await outbox.acknowledge(Ack(epoch=ack[0], stream=Stream.EVENT, seq=ack[1]))
        assert outbox.position(Stream.EVENT) == (0, 2)


async def test_a_segment_acknowledged_in_part_is_sent_again_whole(state_dir: Path) -> None:
    async with opened(state_dir) as outbox:
        await outbox.emit("host", [("a.b", n) for n in range(4)], Stream.EVENT)
        outbox.sent(Stream.EVENT, row_id(1, 4))
        assert not await outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))
        acknowledged, _ = outbox.position(Stream.EVENT)
        assert len(await stored(outbox, after=acknowledged)) == 4
