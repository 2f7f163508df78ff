"""One history per vehicle, out of what several boxes tell of it, counted exactly once."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, event
from tests.integration.console_cars import (
    REF,
    VIN,
    Boxes,
    calibrations,
    cleared,
    fold,
    found,
    frame,
    identified,
    readiness,
    scanned,
    silent,
)
from tests.integration.console_history import rows_of
from tests.integration.console_messages import NOW, Store, presence

from nexus_agent.protocol import Quality
from nexus_console.db.engine import Database
from nexus_console.db.models import vehicle_codes, vehicle_facts, vehicle_marks, vehicles
from nexus_console.vehicles import history
from nexus_console.vehicles.history import Histories

pytest_plugins = ["tests.integration.console_databases"]

HOUR = 3600
TABLES = (vehicles, vehicle_codes, vehicle_facts, vehicle_marks)


@pytest.fixture
def boxes(store: Store) -> Boxes:
    return Boxes(store)


def tables(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows_of(database, table) for table in TABLES}


def states(database: Database, code: str = "P0301") -> list[str]:
    (row,) = [row for row in rows_of(database, vehicle_codes) if row["code"] == code]
    return [change["state"] for change in orjson.loads(row["life"])["changes"]]


def test_two_boxes_make_one_history(console_database: Database, boxes: Boxes) -> None:
    boxes.tell(identified(), found("a", "P0301"), at=0, box="bay-1")
    boxes.tell(identified(vin=VIN), cleared(), found("b"), at=HOUR, box="bay-2")
    boxes.tell(found("c", "P0301"), at=2 * HOUR, box="bay-1")
    fold(console_database)
    assert states(console_database) == ["confirmed", "cleared", "returned"]
    (car,) = rows_of(console_database, vehicles)
    assert (car["ref"], car["vin"], car["maker"], car["model_year"]) == (REF, VIN, "Honda", 2003)
    assert (car["first_seen"], car["last_seen"]) == (NOW, NOW + 2 * HOUR * 10**9)
    assert (car["present"], car["unknown"]) == (1, 0)


def test_a_scan_that_comes_late_gives_the_history_as_in_order(
    console_database: Database, boxes: Boxes
) -> None:
    boxes.tell(found("c", "P0301"), at=2 * HOUR, box="bay-1")
    fold(console_database)
    assert states(console_database) == ["confirmed"]
    boxes.tell(found("a", "P0301"), at=0, box="bay-2")
    boxes.tell(found("b"), at=HOUR, box="bay-2")
    fold(console_database)
    assert states(console_database) == ["confirmed", "gone", "returned"]


def test_a_module_that_does_not_answer_is_not_clean(
    console_database: Database, boxes: Boxes
) -> None:
    boxes.tell(found("a", "P0301"), at=0)
    boxes.tell(silent("b"), at=HOUR)
    fold(console_database)
    assert states(console_database) == ["confirmed", "unknown"]
    (car,) = rows_of(console_database, vehicles)
    assert (car["present"], car["unknown"]) == (0, 1)


def test_a_clearing_that_was_refused_clears_nothing(
    console_database: Database, boxes: Boxes
) -> None:
    boxes.tell(found("a", "P0301"), cleared(Quality.REFUSED), at=0)
    fold(console_database)
    assert states(console_database) == ["confirmed"]


def test_a_scan_that_was_sent_twice_counts_once(console_database: Database, boxes: Boxes) -> None:
    boxes.tell(found("a", "P0301"), cleared(), found("a", "P0301"), at=0)
    fold(console_database)
    assert states(console_database) == ["confirmed", "cleared"]


def test_what_cannot_be_read_is_counted_and_skipped(
    console_database: Database, boxes: Boxes
) -> None:
    nul = found("a", "P0301").document()
    nul["modules"][0]["ecu"] = "\0"
    boxes.tell(
        ("scan.completed", {"vehicle_ref": REF}),
        ("dtc.cleared", 7),
        ("scan.completed", nul),
        at=0,
    )
    newer = found("b", "P0420").document() | {"later": {"than": "this console"}}
    boxes.tell(("scan.completed", newer), at=1)
    assert fold(console_database) == 4
    assert [row["unreadable"] for row in rows_of(console_database, vehicle_marks)] == [3]
    assert states(console_database, "P0420") == ["confirmed"]


def test_what_names_no_car_is_in_no_history(console_database: Database, boxes: Boxes) -> None:
    boxes.tell(identified(ref=None), scanned("a", {}, ref=None), at=0)
    assert fold(console_database) == 2
    assert rows_of(console_database, vehicles) == []


def test_the_newest_of_what_only_counts_as_it_is_now_is_kept(
    console_database: Database, boxes: Boxes
) -> None:
    boxes.tell(readiness(complete=True), at=HOUR, box="bay-2")
    boxes.tell(readiness(complete=False), calibrations(), at=0)
    fold(console_database)
    kept = {row["type"]: row["time"] for row in rows_of(console_database, vehicle_facts)}
    assert kept == {"readiness.snapshot": NOW + HOUR * 10**9, "calibration.ids": NOW}


def test_a_clock_that_becomes_known_puts_a_scan_in_its_place(
    console_database: Database, store: Store, boxes: Boxes
) -> None:
    boxes.tell(found("b"), at=0)
    # By its clock an hour later; the box learns that it was two hours before.
    boxes.tell(found("a", "P0301"), at=HOUR, box="bay-2", synced=False, boot="lost")
    fold(console_database)
    assert states(console_database) == ["confirmed"]
    boxes.tell(identified(ref=None), at=HOUR, box="bay-2", synced=False, boot="other")
    store.take(
        presence(
            device="bay-2",
            online=True,
            session="s",
            boot="lost",
            mono=f"{1000 + 2 * HOUR}.000000",
            time="2026-01-02T03:04:05Z",
            synced=True,
            interval=60,
            epoch=1,
            next={"event": 3},
            received=NOW,
        )
    )
    fold(console_database)
    assert states(console_database) == ["confirmed", "gone"]


def random_story(source: random.Random, boxes: Boxes, length: int) -> None:
    for _ in range(length):
        kinds: list[Callable[[str], Any]] = [
            lambda n: found(n, *source.sample(["P0301", "P0420", "P0171"], 2)),
            found,
            silent,
            lambda _: cleared(source.choice(list(Quality))),
            lambda _: identified(ref=source.choice([REF, "another"])),
            lambda _: readiness(complete=source.random() < 0.5),
            lambda _: frame(),
            lambda _: ("scan.completed", {"scan_id": 1}),
        ]
        said = source.choice(kinds)(f"{source.getrandbits(64):x}")
        boxes.tell(said, at=source.randrange(9 * HOUR), box=source.choice(["bay-1", "bay-2"]))


@pytest.mark.parametrize("seed", range(3))
def test_wherever_it_is_cut_and_killed_the_tables_are_those_of_a_rebuild(
    console_database: Database, boxes: Boxes, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    source = random.Random(seed)
    for _ in range(4):
        random_story(source, boxes, 10)
        monkeypatch.setattr(history, "MAX_EVENTS", source.randrange(1, 9))
        # As a kill does it: the next process begins with what is stored.
        list(islice(Histories(console_database).turn(), source.randrange(6)))
    fold(console_database)
    before = tables(console_database)
    with console_database.write() as connection:
        for table in TABLES:
            connection.execute(delete(table))
    monkeypatch.setattr(history, "MAX_EVENTS", 1000)
    assert fold(console_database) == 40
    assert tables(console_database) == before
    assert before["vehicle_facts"]


class _PowerCutError(Exception):
    pass


def test_a_transaction_that_is_cut_short_takes_nothing(
    console_database: Database, boxes: Boxes
) -> None:
    boxes.tell(found("a", "P0301"), at=0)

    def cut(*_: Any) -> None:
        raise _PowerCutError

    event.listen(console_database._writer, "commit", cut)
    with pytest.raises(_PowerCutError):
        fold(console_database)
    event.remove(console_database._writer, "commit", cut)
    assert all(not rows for rows in tables(console_database).values())
    assert fold(console_database) == 1
    assert fold(console_database) == 0
