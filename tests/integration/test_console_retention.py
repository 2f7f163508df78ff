"""What is deleted when, and what stays for ever."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import OperationalError
from tests.integration.console_cars import fold
from tests.integration.console_history import (
    DAY,
    START,
    Told,
    add_device,
    add_events,
    pid,
    rows_of,
)
from tests.integration.console_messages import NOW as CONSOLE_NOW
from tests.integration.console_messages import Store, message, sealed

from nexus_agent.protocol import Stream
from nexus_console import reading, retention
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    devices,
    events,
    losses,
    ranges,
    segments,
    series_hour,
    series_minute,
    streams,
    type_spans,
    untimed,
)
from nexus_console.retention import Deleted
from nexus_console.rollups import Rollups

pytest_plugins = ["tests.integration.console_databases"]

NOW = START + 100 * DAY


def roll_up(database: Database) -> None:
    for _ in Rollups(database).turn():
        pass
    fold(database)


def clear(database: Database, **days: int) -> Deleted:
    """A turn at NOW with *days*, everything else kept for ever."""
    settings = RetentionSettings(
        **{"raw_days": 0, "event_days": 0, "minute_days": 0, "hour_days": 0, **days}
    )
    return sum(retention.turn(database, settings, NOW), Deleted())


def came(days_ago: float, **more: Any) -> Told:
    return pid(1, received=NOW - int(days_ago * DAY), **more)


def positions(database: Database) -> list[int]:
    return sorted(row["position"] for row in rows_of(database, events))


def test_what_came_too_long_ago_goes_by_the_consoles_clock_alone(
    console_database: Database,
) -> None:
    device = add_device(console_database)
    told = [came(31, time=NOW), came(30.1, time=START), came(29.9, time=START), came(0, time=0)]
    add_events(console_database, device, told)
    roll_up(console_database)
    assert clear(console_database, raw_days=30) == Deleted(events=2)
    assert positions(console_database) == [3, 4]


def test_an_event_stays_until_it_is_in_a_vehicles_history(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(500, stream=Stream.EVENT), came(500)])
    for _ in Rollups(console_database).turn():
        pass
    assert clear(console_database, event_days=400, raw_days=30) == Deleted(events=1)
    fold(console_database)
    assert clear(console_database, event_days=400) == Deleted(events=1)


def test_each_stream_has_its_own_days(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(50, stream=stream) for stream in Stream])
    roll_up(console_database)
    clear(console_database, raw_days=30, event_days=60)
    assert positions(console_database) == [1, 2]
    clear(console_database, event_days=40)
    assert positions(console_database) == []


def test_zero_is_for_ever(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(99)])
    roll_up(console_database)
    assert clear(console_database) == Deleted()


def test_what_is_not_summed_up_yet_stays(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(50)])
    roll_up(console_database)
    add_events(console_database, device, [came(50)])
    clear(console_database, raw_days=30)
    assert positions(console_database) == [2]


def test_the_marks_stay_and_numbering_goes_on(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(50)] * 5)
    [lane] = rows_of(console_database, streams)
    with console_database.write() as connection:
        connection.execute(insert(ranges).values(stream_id=lane["id"], first=10, last=12))
        connection.execute(
            insert(losses).values(
                stream_id=lane["id"], first=1, last=2, cause="disk quota", received=START
            )
        )
    roll_up(console_database)
    kept = (devices, streams, ranges, losses, series_minute, series_hour)
    before = [rows_of(console_database, table) for table in kept]
    clear(console_database, raw_days=30)
    assert positions(console_database) == []
    assert [rows_of(console_database, table) for table in kept] == before
    add_events(console_database, device, [came(0)])
    assert [(row["position"], row["seq"]) for row in rows_of(console_database, events)] == [(6, 6)]


def test_spans_segments_and_unknown_clocks_go_with_their_events(
    console_database: Database,
) -> None:
    device = add_device(console_database)
    old = [came(50), came(50, type="host.metrics"), came(50, clock="unknown")]
    add_events(console_database, device, old)
    add_events(console_database, device, [came(50), came(1), came(1)])
    with console_database.write() as connection:
        for position in (3, 6):
            key = {"device_id": device, "boot": "b", "stream": 2, "position": position}
            connection.execute(insert(untimed).values(**key, mono=1))
    roll_up(console_database)
    clear(console_database, raw_days=30)
    assert positions(console_database) == [5, 6]
    # The segment of the fourth event is still partly there.
    assert [row["first"] for row in rows_of(console_database, segments)] == [4]
    [span] = rows_of(console_database, type_spans)
    assert (span["type"], span["first"], span["last"], span["count"]) == ("telemetry.pid", 4, 6, 2)
    assert [row["position"] for row in rows_of(console_database, untimed)] == [6]
    with console_database.read() as connection:
        found = reading.arrived(connection, device, "telemetry.pid", limit=10)
    assert [row.position for row in found] == [5, 6]


def test_a_turn_that_is_cut_short_is_finished_by_the_next(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [came(50)] * 400)
    roll_up(console_database)
    settings = RetentionSettings(raw_days=30)
    steps = list(islice(retention.turn(console_database, settings, NOW), 2))
    rest = clear(console_database, raw_days=30)
    assert sum(steps, rest).events == 400
    assert rows_of(console_database, type_spans) == []
    assert rows_of(console_database, segments) == []


def test_sums_go_by_the_time_that_they_are_for(console_database: Database) -> None:
    device = add_device(console_database)
    days = (90, 50, 10)
    for name in ("a", "b"):
        told = [came(0, time=NOW - day * DAY, name=name) for day in days]
        add_events(console_database, device, told)
    roll_up(console_database)
    assert clear(console_database, minute_days=60, hour_days=30) == Deleted(minutes=2, hours=4)
    assert len(rows_of(console_database, series_minute)) == 4
    assert len(rows_of(console_database, series_hour)) == 2


def test_sums_are_deleted_a_few_at_a_time(
    console_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = add_device(console_database)
    told = [came(0, time=START + n * 60 * 10**9, name=name) for n in range(10) for name in "ab"]
    add_events(console_database, device, told)
    roll_up(console_database)
    monkeypatch.setattr(retention, "PERIODS", 6)
    settings = RetentionSettings(minute_days=30, hour_days=0)
    steps = [step.minutes for step in retention.turn(console_database, settings, NOW)]
    assert (sum(steps), max(steps)) == (20, 6)


def test_ingest_and_retention_of_one_stream_wait_for_each_other(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    database.prepare()
    add_events(database, add_device(database), [came(50)])
    roll_up(database)
    hasty = Database(f"{postgresql_url}&options=-c%20lock_timeout%3D50")
    with database.write() as connection:
        # What a lane does first when a segment of it comes.
        connection.execute(select(streams).with_for_update())
        with pytest.raises(OperationalError, match="lock timeout"):
            clear(hasty, raw_days=30)
    assert clear(hasty, raw_days=30) == Deleted(events=1)
    hasty.close()
    database.close()


def test_what_comes_again_after_it_was_deleted_is_a_duplicate(store: Store) -> None:
    data = [{"name": "speed", "value": n, "quality": "ok"} for n in range(6)]
    first, second, third = (sealed(n, *data[n - 1 : n + 1]) for n in (1, 3, 5))
    store.take(message(first), message(third), message(second))
    roll_up(store.database)
    now = CONSOLE_NOW + 100 * DAY
    settings = RetentionSettings(event_days=30)
    assert sum(retention.turn(store.database, settings, now), Deleted()).events == 6
    for table in (segments, type_spans):
        assert store.rows(table) == []
    store.take(message(second), message(sealed(7, data[0])))
    [lane] = store.rows(streams)
    assert (lane["high_water"], lane["received"], lane["duplicates"]) == (7, 7, 2)
    assert lane["conflicts"] == 0
    assert [(row["seq"], row["position"]) for row in store.rows(events)] == [(7, 7)]
    roll_up(store.database)
    assert [row["ok"] for row in store.rows(series_hour)] == [7]
