"""Erasing a vehicle: nothing of it is left, nothing else is gone, and no mark has moved."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from sqlalchemy import insert, update
from tests.integration.console_cars import REF, VIN, Boxes, fold, found, identified, live
from tests.integration.console_history import rows_of
from tests.integration.console_messages import NOW, Store, message, sealed

from nexus_console.__main__ import main
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    commands,
    events,
    metadata,
    set_aside,
    streams,
    unreadable,
    vehicle_codes,
    vehicle_facts,
    vehicle_marks,
    vehicles,
)
from nexus_console.vehicles.erasure import ErasureError, erase

pytest_plugins = ["tests.integration.console_databases"]

OTHER = "another-car"


@pytest.fixture
def boxes(store: Store) -> Boxes:
    """Two boxes have told of two cars."""
    boxes = Boxes(store)
    boxes.tell(identified(vin=VIN), found("a", "P0301"), at=0, box="bay-1")
    boxes.tell(live("engine_speed", 12, 800.0, "rpm"), at=1, box="bay-1")
    # Sent before the shop's setting said so: without the VIN.
    boxes.tell(found("b", "P0301"), at=2, box="bay-2")
    boxes.tell(identified(ref=OTHER), found("c", "P0420", ref=OTHER), at=3, box="bay-1")
    return boxes


def everything(database: Database, store: Store) -> str:
    """Every text that the database holds."""
    rows = {table.name: rows_of(database, table) for table in metadata.sorted_tables}
    return repr(rows) + "".join(row.line for row in store.stored())


@pytest.mark.parametrize("by", [{"ref": REF}, {"vin": VIN}, {"vin": VIN.lower()}])
def test_nothing_of_it_is_left_and_the_rest_is(
    console_database: Database, store: Store, boxes: Boxes, by: dict[str, Any]
) -> None:
    fold(console_database)
    result = erase(console_database, **by)
    text = everything(console_database, store)
    assert REF not in text
    assert VIN not in text
    assert result.model_dump() == {
        "vehicles": 1,
        "facts": 3,
        "codes": 1,
        "events": {"scan.completed": 2, "telemetry.pid": 1, "vehicle.identified": 1},
        "segments": 0,
        "messages": 0,
        "commands": 0,
        "not_searched": 0,
        "log_emptied": True,
    }
    assert [row["ref"] for row in rows_of(console_database, vehicles)] == [OTHER]
    assert [row["code"] for row in rows_of(console_database, vehicle_codes)] == ["P0420"]


def test_a_vehicle_that_is_in_no_history_yet_is_erased_too(
    console_database: Database, store: Store, boxes: Boxes
) -> None:
    erase(console_database, vin=VIN)
    assert REF not in everything(console_database, store)
    fold(console_database)
    assert {row["ref"] for row in rows_of(console_database, vehicle_facts)} == {OTHER}
    assert [row["unreadable"] for row in rows_of(console_database, vehicle_marks)] == [0, 0]


def test_a_second_time_finds_nothing(console_database: Database, boxes: Boxes) -> None:
    fold(console_database)
    erase(console_database, vin=VIN)
    again = erase(console_database, ref=REF)
    assert (again.vehicles, again.facts, again.codes, again.events) == (0, 0, 0, {})


def test_events_keep_their_place_time_and_type(
    console_database: Database, store: Store, boxes: Boxes
) -> None:
    before = [row[:-1] for row in store.stored()]
    marks = rows_of(console_database, streams)
    erase(console_database, ref=REF)
    assert [row[:-1] for row in store.stored()] == before
    assert rows_of(console_database, streams) == marks
    lines = [orjson.loads(row.line) for row in store.stored()]
    assert [line["data"] for line in lines].count({"erased": "vehicle"}) == 4
    assert all(line["time"] and line["boot"] and line["source"] for line in lines)


def test_what_a_box_sends_again_does_not_bring_it_back(
    console_database: Database, store: Store
) -> None:
    scans = [found(scan_id, "P0301").document() for scan_id in "ab"]

    def part(first: int, *data: Any) -> Any:
        return message(sealed(first, *data, event_type="scan.completed"))

    store.take(part(1, *scans))
    erase(console_database, ref=REF)
    # The same once more, then cut into other segments.
    outcomes = [store.take(part(1, *scans)), store.take(part(1, scans[0]), part(2, scans[1]))]
    assert [mark.order for outcome in outcomes for mark in outcome.marks] == [None, None]
    assert REF not in everything(console_database, store)


def test_what_was_kept_as_it_came_and_what_commands_answered_go_too(
    console_database: Database, store: Store, boxes: Boxes
) -> None:
    conflict = sealed(1, found("other", "P0171").document(), event_type="scan.completed")
    store.take(message(conflict, device="bay-2"))
    with console_database.write() as connection:
        connection.execute(
            insert(unreadable).values(
                topic="nexus/v1/bay-1/up/x",
                reason="no such topic",
                properties="[]",
                payload=f'{{"vin": "{VIN}"}}'.encode(),
                size=30,
                received=NOW,
            )
        )
        connection.execute(
            insert(commands).values(
                id="c1",
                device_id=1,
                counter=1,
                name="obd.scan",
                args="{}",
                state="succeeded",
                result=f'{{"vehicle_ref": "{REF}"}}',
                created=NOW,
                expires=NOW,
                updated=NOW,
                created_by="anna",
                envelope="{}",
            )
        )
    result = erase(console_database, vin=VIN)
    assert (result.segments, result.messages, result.commands) == (1, 1, 1)
    text = everything(console_database, store)
    assert REF not in text
    assert VIN not in text
    assert rows_of(console_database, set_aside) == []
    (command,) = rows_of(console_database, commands)
    assert (command["state"], orjson.loads(command["result"])) == (
        "succeeded",
        {"erased": "vehicle"},
    )


def test_lines_that_are_in_no_block_are_erased(
    console_database: Database, store: Store, boxes: Boxes
) -> None:
    row = store.stored()[0]
    with console_database.write() as connection:
        connection.execute(
            update(events)
            .filter_by(device_id=row.device_id, stream=row.stream, position=row.position)
            .values(line=row.line, block=None)
        )
    erase(console_database, ref=REF)
    assert REF not in everything(console_database, store)


@pytest.mark.parametrize("by", [{"ref": "a"}, {"vin": "IOQ"}, {"vin": f"{VIN}%"}])
def test_what_names_no_vehicle_erases_nothing(
    console_database: Database, store: Store, boxes: Boxes, by: dict[str, Any]
) -> None:
    before = everything(console_database, store)
    with pytest.raises(ErasureError):
        erase(console_database, **by)
    assert everything(console_database, store) == before


def test_the_command_leaves_no_byte_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "console.db"
    database = Database(f"sqlite:///{path}")
    database.prepare()
    boxes = Boxes(Store(database))
    boxes.tell(identified(vin=VIN), found("a", "P0301"), at=0)
    fold(database)
    database.close()
    config = tmp_path / "console.toml"
    config.write_text(
        f'[database]\nurl = "sqlite:///{path}"\n[broker]\nurl = "mqtts://b:8883"\n'
        'ca = "/ca.pem"\ncert = "/c.pem"\nkey = "/k.pem"\n'
    )
    arguments = ["erase", "--config", str(config), "--vin", "-", "--yes", "--json"]
    result = CliRunner().invoke(main, arguments, input=f"{VIN}\n")
    assert result.exit_code == 0, result.output
    assert orjson.loads(result.output)["events"] == {"scan.completed": 1, "vehicle.identified": 1}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("console.db*"))
    assert VIN.encode() not in kept
    assert REF.encode() not in kept
    assert result.output.count(VIN) == 0


@pytest.mark.parametrize("arguments", [[], ["--vehicle", REF, "--vin", VIN]])
def test_the_command_wants_one_name(tmp_path: Path, arguments: list[str]) -> None:
    config = tmp_path / "console.toml"
    result = CliRunner().invoke(main, ["erase", "--config", str(config), *arguments])
    assert result.exit_code == 2
    assert "Give one of --vehicle and --vin." in result.output
