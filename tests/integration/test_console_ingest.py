"""The writer: nothing is acknowledged before it is committed, whatever the database does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from tests.integration.console_messages import DEVICE, Store, message, presence, run

from nexus_agent.protocol import Ack, Stream, Topic
from nexus_console.db.models import unreadable
from nexus_console.ingest import Inbox, Writer
from nexus_console.intake import Inbound

pytest_plugins = ["tests.integration.console_databases"]


class Bench:
    """A writer at work, and what it tells whom, in order."""

    def __init__(self, store: Store) -> None:
        self.told: list[str] = []
        self.acks: list[Ack] = []
        self.inbox = Inbox()
        self.writer = Writer(
            store.database, self.inbox, publish=self._publish, came_up=self._came_up
        )

    def put(self, name: str, inbound: Inbound) -> None:
        self.inbox.put(replace(inbound, done=lambda: self.told.append(f"puback {name}")))

    def _publish(self, topic: str, payload: bytes) -> bool:
        ack = Ack.decode(payload)
        assert topic == Topic(DEVICE).ack
        self.acks.append(ack)
        self.told.append(f"ack {ack.stream} {ack.epoch}/{ack.seq}")
        return True

    def _came_up(self, devices: set[str]) -> None:
        self.told.append(f"up {' '.join(devices)}")


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    thread = threading.Thread(target=bench.writer.run)
    thread.start()
    yield bench
    bench.writer.stop()
    thread.join()


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true within 20 s"
        threading.Event().wait(0.01)


def test_the_broker_is_told_first_and_the_box_then(bench: Bench) -> None:
    bench.put("a", message(run(1, 3)))
    wait(lambda: len(bench.told) == 2)
    assert bench.told == ["puback a", "ack event 1/3"]


def test_a_duplicate_is_acknowledged_to_both_again(bench: Bench) -> None:
    bench.put("a", message(run(1, 3)))
    wait(lambda: len(bench.told) == 2)
    bench.put("b", message(run(1, 3)))
    wait(lambda: len(bench.told) == 4)
    assert bench.told[2:] == ["puback b", "ack event 1/3"]


def test_nothing_is_acknowledged_while_the_database_refuses(bench: Bench, store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(text("ALTER TABLE events RENAME TO away"))
    bench.put("a", message(run(1, 3)))
    wait(lambda: bench.writer.totals.failures >= 2)
    assert bench.told == []
    assert bench.writer.error is not None
    with store.database.write() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO events"))
    wait(lambda: len(bench.told) == 2)
    assert store.sequences() == [1, 2, 3]
    assert bench.writer.error is None


def test_a_message_that_no_column_takes_does_not_hold_up_the_rest(
    bench: Bench, store: Store
) -> None:
    # SQLite stores the NUL of this session, PostgreSQL refuses it.
    bench.put("bad", presence(online=True, session="nul \0 inside"))
    bench.put("good", message(run(1, 2)))
    wait(lambda: f"ack {Stream.EVENT} 1/2" in bench.told)
    assert {"puback bad", "puback good"} <= set(bench.told)
    assert store.sequences() == [1, 2]
    assert len(store.rows(unreadable)) == (0 if store.database.is_sqlite else 1)


def test_a_box_that_comes_up_is_announced_after_the_commit(bench: Bench) -> None:
    bench.put("birth", presence(online=True, session="s1"))
    wait(lambda: len(bench.told) == 2)
    assert bench.told == ["puback birth", f"up {DEVICE}"]


def test_an_acknowledgement_asks_for_what_is_missing_and_orders_a_new_epoch(bench: Bench) -> None:
    bench.put("a", message(run(4, 9)))
    wait(lambda: len(bench.acks) == 1)
    birth: dict[str, Any] = {
        "session": "s1",
        "epoch": 1,
        "next": {"event": 6},
        "released": {"event": 5},
    }
    bench.put("birth", presence(online=True, **birth))
    wait(lambda: len(bench.acks) == 2)
    first, second = bench.acks
    assert (first.want, first.renew, first.above) == ([], None, None)
    assert (second.seq, second.want, second.above) == (0, [(1, 3)], 1)
    assert second.renew == (
        "event 1/5 is behind what was received before: its disk was restored or copied"
    )


def test_a_full_inbox_makes_the_reader_wait() -> None:
    inbox = Inbox(max_messages=1)
    inbox.put(message(run(1, 1)))
    reader = threading.Thread(target=inbox.put, args=(message(run(2, 2)),))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    assert len(inbox.take()) == 1
    reader.join(10)
    assert len(inbox) == 1


def test_a_full_inbox_is_also_one_with_many_bytes() -> None:
    inbox = Inbox(max_bytes=10)
    inbox.put(message(run(1, 100)))
    reader = threading.Thread(target=inbox.put, args=(message(run(101, 101)),))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    inbox.close()
    reader.join(10)
    assert not reader.is_alive()
