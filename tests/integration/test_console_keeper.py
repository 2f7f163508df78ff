"""The keeper's thread: it does its work, gives way to ingest, and stops at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from tests.integration.console_cars import REF, Boxes, identified
from tests.integration.console_history import DAY, START, add_device, add_events, pid, rows_of
from tests.integration.console_messages import Store

from nexus_console import keeper
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import events, rollup_marks, series_minute, vehicles
from nexus_console.keeper import Keeper
from nexus_console.live import VEHICLES, Change
from nexus_console.rollups import MINUTE

pytest_plugins = ["tests.integration.console_databases"]


@pytest.fixture
def database(tmp_path: object) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/console.db")
    database.prepare()
    yield database
    database.close()


@contextmanager
def running(one: Keeper) -> Iterator[None]:
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        yield
    finally:
        one.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def mark(database: Database) -> int:
    return sum(row["position"] for row in rows_of(database, rollup_marks))


def test_it_sums_up_and_then_deletes_what_is_old(console_database: Database) -> None:
    device = add_device(console_database)
    now = time.time_ns()
    told = [pid(1, received=now - 40 * DAY), pid(2, received=now)]
    add_events(console_database, device, told)
    with running(Keeper(console_database, RetentionSettings(), busy=lambda: False)):
        until(lambda: [row["position"] for row in rows_of(console_database, events)] == [2])
    assert [row["ok"] for row in rows_of(console_database, series_minute)] == [2]


def test_an_event_wakes_it_and_who_watches_hears_of_the_history(
    console_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "ROLL_UP_PERIOD_S", 3600.0)
    told: list[Change] = []
    one = Keeper(
        console_database,
        RetentionSettings(),
        busy=lambda: False,
        tell=told.extend,
    )
    boxes = Boxes(Store(console_database))
    with running(one):
        boxes.tell(identified(), at=0)
        one.heed({("bay-1", "event")})
        until(lambda: told)
    assert told == [("bay-1", VEHICLES)]
    assert [row["ref"] for row in rows_of(console_database, vehicles)] == [REF]


def test_it_goes_on_when_the_database_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "ROLL_UP_PERIOD_S", 0.01)
    device = add_device(database)
    add_events(database, device, [pid(1)])

    def rename(old: str, new: str) -> None:
        with database.write() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("series_minute", "away")
    failures: list[str] = []
    monkeypatch.setattr(keeper._log, "error", lambda said, **_: failures.append(said))
    with running(Keeper(database, RetentionSettings(), busy=lambda: False)):
        until(lambda: failures)
        assert mark(database) == 0
        rename("away", "series_minute")
        until(lambda: mark(database) == 1)


def test_readings_are_summed_up_while_the_database_refuses_histories(database: Database) -> None:
    Boxes(Store(database)).tell(identified(), at=0)
    with database.write() as connection:
        connection.execute(text("DROP TABLE vehicle_facts"))
    with running(Keeper(database, RetentionSettings(), busy=lambda: False)):
        until(lambda: mark(database) == 1)
    assert rows_of(database, vehicles) == []


def test_it_stops_within_a_second_in_the_middle_of_much_work(database: Database) -> None:
    device = add_device(database)
    many = [pid(n, name=f"n{n}", time=START + n * MINUTE) for n in range(20_000)]
    add_events(database, device, many)
    with running(Keeper(database, RetentionSettings(), busy=lambda: False)):
        until(lambda: mark(database) > 0)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert mark(database) < 20_000


def test_it_gives_way_while_ingest_is_busy(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LONGEST_YIELD_S", 60)
    device = add_device(database)
    many = [pid(n, name=f"n{n}") for n in range(4_000)]
    add_events(database, device, many)
    busy = threading.Event()
    busy.set()
    asked: list[int] = []

    def is_busy() -> bool:
        asked.append(mark(database))
        return busy.is_set()

    with running(Keeper(database, RetentionSettings(), busy=is_busy)):
        until(lambda: len(asked) > 5)
        # Asked again and again, it has written nothing in between.
        assert len(set(asked)) == 1
        busy.clear()
        until(lambda: mark(database) == 4_000)
