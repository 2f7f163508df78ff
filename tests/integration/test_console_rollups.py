"""Sums of a minute and of an hour: every reading counted once, and none invented."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import islice
from typing import Any

import pytest
from sqlalchemy import event, select
from tests.integration.console_history import (
    SECOND,
    START,
    Told,
    add_device,
    add_events,
    pid,
    rows_of,
)

from nexus_agent.protocol import Stream
from nexus_console import rollups
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    rollup_marks,
    series,
    series_hour,
    series_minute,
)
from nexus_console.rollups import HOUR, MINUTE, Rollups

pytest_plugins = ["tests.integration.console_databases"]

QUALITIES = ("ok", "absent", "refused", "malformed")


def roll_up(database: Database) -> int:
    return sum(Rollups(database).turn())


def cells(database: Database, table: Any) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(device, name, start): (counts, minimum, maximum, total rounded)."""
    found = select(series.c.device_id, series.c.name, table).join_from(series, table)
    with database.read() as connection:
        return {
            (row.device_id, row.name, row.start): (
                tuple(getattr(row, quality) for quality in QUALITIES),
                row.minimum,
                row.maximum,
                None if row.total is None else round(row.total, 6),
            )
            for row in connection.execute(found)
        }


def naive(told: dict[int, list[Told]], length: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """What the sums should be, counted in the plainest way."""
    gathered: dict[tuple[Any, ...], list[tuple[Any, str]]] = defaultdict(list)
    for device_id, events in told.items():
        for one in events:
            for name, value in readings_of(one.data):
                start = one.time - one.time % length
                gathered[device_id, name, start].append((value["value"], value["quality"]))
    return {key: summed(found) for key, found in gathered.items()}


def readings_of(data: Any) -> list[tuple[str, dict[str, Any]]]:
    if "name" in data:
        return [(data["name"], data)]
    return [(name, value) for name, value in data.items() if isinstance(value, dict)]


def summed(found: list[tuple[Any, str]]) -> tuple[Any, ...]:
    ok = [value for value, quality in found if quality == "ok"]
    numbers = [value for value in ok if type(value) in {int, float}]
    mean_is_known = ok and len(numbers) == len(ok)
    counts = tuple(sum(quality == known for _, quality in found) for known in QUALITIES)
    return (
        counts,
        min(numbers, default=None),
        max(numbers, default=None),
        round(sum(numbers), 6) if mean_is_known else None,
    )


def random_event(source: random.Random) -> Told:
    time = START + source.randrange(3 * HOUR)
    quality = source.choice(("ok", "ok", "ok", *QUALITIES))
    value = source.choice((source.uniform(-50, 50), source.randrange(100), "P", True))
    match source.randrange(4):
        case 0:
            metrics = {"cpu": {"value": value, "unit": "%", "quality": quality}, "note": 1}
            return Told(metrics, time, type="host.metrics")
        case 1:
            return Told({"state": "connected"}, time, type="x.state", stream=Stream.EVENT)
        case _:
            stream = source.choice((Stream.TELEMETRY, Stream.TELEMETRY, Stream.ALERT))
            name = source.choice(("speed", "load"))
            return pid(value, quality, name=name, time=time, stream=stream)


@pytest.mark.parametrize("seed", range(4))
def test_sums_are_what_a_naive_count_gives_wherever_it_is_cut_and_killed(
    console_database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    source = random.Random(seed)
    told: dict[int, list[Told]] = {add_device(console_database, f"bay-{n}"): [] for n in range(3)}
    for _ in range(6):
        for device_id, before in list(told.items()):
            more = [random_event(source) for _ in range(source.randrange(60))]
            add_events(console_database, device_id, more)
            told[device_id] = before + more
        monkeypatch.setattr(rollups, "MAX_EVENTS", source.randrange(1, 40))
        monkeypatch.setattr(rollups, "MAX_PERIODS", source.randrange(1, 40))
        # As a kill does it: no word to anyone, and the next process begins with what is stored.
        list(islice(Rollups(console_database).turn(), source.randrange(5)))
    roll_up(console_database)
    assert cells(console_database, series_minute) == naive(told, MINUTE)
    assert cells(console_database, series_hour) == naive(told, HOUR)


class _PowerCutError(Exception):
    pass


def test_a_transaction_that_is_cut_short_counts_nothing(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(1), pid(2)])

    def cut(*_: Any) -> None:
        raise _PowerCutError

    writer = console_database._writer
    event.listen(writer, "commit", cut)
    with pytest.raises(_PowerCutError):
        roll_up(console_database)
    event.remove(writer, "commit", cut)
    assert rows_of(console_database, series_minute) == []
    assert roll_up(console_database) == 2
    [((counts, *_, total))] = cells(console_database, series_minute).values()
    assert (counts, total) == ((2, 0, 0, 0), 3.0)


def test_two_consoles_count_an_event_once(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(1)])
    slow, fast = Rollups(console_database), Rollups(console_database)
    read = slow._gather(slow._behind())
    assert sum(fast.turn()) == 1
    assert not slow._write(read)
    [((counts, *_, total))] = cells(console_database, series_minute).values()
    assert (counts, total) == ((1, 0, 0, 0), 1.0)


def test_a_mean_that_nobody_knows_is_not_told(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(4)])
    roll_up(console_database)
    add_events(console_database, device, [pid("P"), pid(None, "absent"), pid(6)])
    roll_up(console_database)
    [cell] = cells(console_database, series_hour).values()
    assert cell == ((3, 1, 0, 0), 4.0, 6.0, None)


@pytest.mark.parametrize(
    "data",
    [
        [],
        1,
        {"name": "obd.scan", "state": "succeeded", "result": 1},
        {"name": "x" * 10_000, "value": 1, "quality": "ok"},
        {"name": "speed", "value": 10**400, "quality": "ok"},
        {"state": "connected", "detail": {"value": 1}},
    ],
    ids=["list", "number", "result", "long name", "huge number", "no quality"],
)
def test_an_event_without_readings_only_moves_the_mark(
    console_database: Database, data: Any
) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [Told(data)])
    assert roll_up(console_database) == 1
    assert rows_of(console_database, rollup_marks) == [{"device_id": device, "position": 1}]
    assert rows_of(console_database, series) == []


@pytest.mark.parametrize(
    ("value", "quality", "column"),
    [
        (1, [], "malformed"),
        (1, None, "malformed"),
        ({"x": 1}, "ok", "malformed"),
        (1e308, "ok", "ok"),
        (-(10**300), "ok", "ok"),
        (2**64, "ok", "ok"),
    ],
    ids=["no text", "no quality", "object", "large float", "large negative", "65 bits"],
)
def test_strange_values_are_counted_and_stop_nothing(
    console_database: Database, value: Any, quality: Any, column: str
) -> None:
    device = add_device(console_database)
    for _ in range(2):
        add_events(console_database, device, [pid(value, quality, name="a\0b")] * 3)
        roll_up(console_database)
    [row] = rows_of(console_database, series_minute)
    assert row[column] == 6


def test_events_wait_a_while_for_a_clock_that_may_become_known(console_database: Database) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(1), pid(2, clock="unknown"), pid(3)])
    soon = Rollups(console_database, clock=lambda: START + 60 * SECOND)
    assert sum(soon.turn()) == 1
    later = Rollups(console_database, clock=lambda: START + 3600 * SECOND)
    assert sum(later.turn()) == 2


def test_a_box_with_very_many_curves_is_taken_in_small_transactions(
    console_database: Database,
) -> None:
    device = add_device(console_database)
    many = [pid(1, name=f"n{n}", time=START + n * MINUTE) for n in range(1_500)]
    add_events(console_database, device, many)
    steps = list(Rollups(console_database).turn())
    assert (sum(steps), len(steps)) == (1_500, 5)
