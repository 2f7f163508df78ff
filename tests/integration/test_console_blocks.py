"""Where the console keeps the lines of events, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from tests.integration.console_history import DAY, START, add_device, add_events, pid, rows_of
from tests.integration.console_messages import Store, message, run, sealed

from nexus_agent.protocol import Stream
from nexus_console import retention
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import STREAM_CODES, blocks, events
from nexus_console.rollups import Rollups

pytest_plugins = ["tests.integration.console_databases"]


def data(store: Store) -> list[str]:
    return [stored.line.rpartition('"data":')[2][:-1] for stored in store.stored()]


def test_a_segment_that_is_new_is_kept_in_its_own_bytes(store: Store) -> None:
    segment = run(1, 3)
    store.take(message(segment))
    (block,) = store.rows(blocks)
    assert (block["first"], block["last"], block["payload"]) == (1, 3, segment.payload)
    assert {row["line"] for row in store.rows(events)} == {""}
    assert data(store) == ["1", "2", "3"]


@pytest.mark.parametrize("count", [1, 3, 21, 256, 341])
def test_a_segment_of_any_size_is_stored_whole_and_in_order(store: Store, count: int) -> None:
    store.take(message(run(1, count)))
    assert [(row.position, row.seq) for row in store.stored()] == [
        (n, n) for n in range(1, count + 1)
    ]
    assert data(store) == [str(n) for n in range(1, count + 1)]


def test_of_a_segment_that_overlaps_only_the_new_lines_are_kept(store: Store) -> None:
    store.take(message(run(3, 4)))
    store.take(message(run(1, 6)))
    assert [(row["first"], row["last"]) for row in store.rows(blocks)] == [(1, 2), (3, 4), (5, 6)]
    assert data(store) == ["3", "4", "1", "2", "5", "6"]


def test_what_has_other_content_has_a_block_of_its_own(store: Store) -> None:
    store.take(message(run(1, 2)))
    store.take(message(sealed(1, "other", 2)))
    assert data(store) == ["1", "2", '"other"']


def test_lines_that_came_before_there_were_blocks_are_read_from_their_rows(store: Store) -> None:
    store.take(message(run(1, 2)))
    with store.database.write() as connection:
        connection.execute(
            update(events).where(events.c.position == 1).values(line='{"data":"old"}', block=None)
        )
    assert data(store) == ['"old"', "2"]


def test_a_block_goes_with_the_last_of_its_events(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(1), pid(2, received=START + 2 * DAY)])
    add_events(console_database, device, [pid(3, received=START + 4 * DAY)])
    list(Rollups(console_database).turn())
    settings = RetentionSettings(raw_days=1)
    list(retention.turn(console_database, settings, START + DAY * 2))
    assert [row["first"] for row in rows_of(console_database, blocks)] == [1, 3]
    list(retention.turn(console_database, settings, START + DAY * 4))
    assert [row["first"] for row in rows_of(console_database, blocks)] == [3]
    assert len(rows_of(console_database, events)) == 1


def test_a_stream_keeps_its_blocks_when_another_ones_go(console_database: Database) -> None:
    device = add_device(console_database)
    told = [pid(1), pid(2, stream=Stream.EVENT), pid(3)]
    add_events(console_database, device, told)
    list(Rollups(console_database).turn())
    settings = RetentionSettings(raw_days=1, event_days=0)
    list(retention.turn(console_database, settings, START + DAY * 9))
    (block,) = rows_of(console_database, blocks)
    assert block["stream"] == STREAM_CODES[Stream.EVENT]
