"""Backup and restore through the command, on both databases and from one to the other."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from click.testing import CliRunner, Result
from sqlalchemy import insert
from tests.integration.console_cars import Boxes, fold, found
from tests.integration.console_history import (
    START,
    add_device,
    add_events,
    pid,
    rows_of,
)
from tests.integration.console_messages import Store

from nexus_agent.protocol import Stream
from nexus_console import archive
from nexus_console.__main__ import main
from nexus_console.auth import Accounts, Role
from nexus_console.backup import TABLES, BackupError, backup, restore
from nexus_console.db.engine import Database
from nexus_console.db.models import (
    boots,
    devices,
    metadata,
    remarks,
    set_aside,
    streams,
    tokens,
    unreadable,
    untimed,
)
from nexus_console.rollups import Rollups

pytest_plugins = ["tests.integration.console_databases"]


def fill(database: Database) -> None:
    """Something in every table."""
    device = add_device(database)
    told = [pid(n + 0.1, time=START + n, stream=stream) for n in range(700) for stream in Stream]
    add_events(database, device, sorted(told, key=lambda one: one.stream))
    add_events(database, add_device(database, "bay-2"), [pid("ä\\u0000", "refused")])
    Boxes(Store(database)).tell(found("a", "P0301"), at=0, box="bay-3")
    fold(database)
    for _ in Rollups(database).turn():
        pass
    accounts = Accounts(database)
    accounts.add("anna", Role.ADMIN, "correct horse")
    accounts.log_in("anna", "correct horse")
    with database.write() as connection:
        for table, values in rows_for(device):
            connection.execute(insert(table).values(values))
    empty = [table.name for table in TABLES if not rows_of(database, table)]
    assert empty == []


def rows_for(device: int) -> list[tuple[Any, dict[str, Any]]]:
    lane = {"stream_id": 1, "first": 10, "last": 12}
    payload = {"payload": bytes(range(256)), "reason": "why", "received": START}
    metadata_of = metadata.tables
    return [
        (metadata_of["ranges"], lane),
        (metadata_of["losses"], {**lane, "cause": "quota", "received": START}),
        (set_aside, {**lane, **payload, "kind": "conflict", "crc": 2**32 - 1}),
        (unreadable, {**payload, "topic": "t", "properties": "[]", "size": 256}),
        (boots, {"device_id": device, "boot": "b", "offset": -5, "basis": "synced", "seen": 1}),
        (untimed, {"device_id": device, "boot": "b", "stream": 1, "position": 3, "mono": 1}),
        (
            remarks,
            {
                "device_id": device,
                "kind": "clock",
                "text": "off",
                "count": 1,
                "first_seen": 1,
                "last_seen": 2,
            },
        ),
        (
            metadata_of["commands"],
            {
                "id": "c1",
                "device_id": device,
                "counter": 1,
                "name": "obd.scan",
                "args": "{}",
                "state": "queued",
                "created": 1,
                "expires": 2,
                "updated": 1,
                "created_by": "anna",
                "envelope": "{}",
            },
        ),
    ]


def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {table.name: rows_of(database, table) for table in TABLES}


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def settings(folder: Path, url: str) -> str:
    file = folder / f"{secrets.token_hex(4)}.toml"
    file.write_text(f'[database]\nurl = "{url}"\n[broker]\nurl = "mqtts://localhost"\n')
    return str(file)


def command(name: str, folder: Path, url: str, file: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [name, "--config", settings(folder, url), *more, str(file)])


def told(result: Result) -> str:
    """The one line of a refusal."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    [line] = result.stderr.splitlines()
    return line


@pytest.fixture
def empty(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/empty.db"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The backup of a small database."""
    with opened(f"sqlite:///{tmp_path}/made.db") as database:
        database.prepare()
        add_events(database, add_device(database), [pid(1), pid(2)])
        backup(database, tmp_path / "made.backup")
    return tmp_path / "made.backup"


def changed(file: Path, old: bytes, new: bytes) -> Path:
    """The same backup with other content under a right checksum."""
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(file.read_bytes())
    assert old in lines
    frame = zstandard.compress(lines.replace(old, new))
    file.write_bytes(frame + archive._SEAL_HEAD + hashlib.sha256(frame).digest())
    return file


def test_there_and_back_again_everything_is_equal(tmp_path: Path, postgresql_url: str) -> None:
    urls = [
        f"sqlite:///{tmp_path}/first.db",
        postgresql_url,
        f"sqlite:///{tmp_path}/second.db",
    ]
    with opened(urls[0]) as database:
        database.prepare()
        fill(database)
        expected = everything(database)
    for n, (source, target) in enumerate(pairwise(urls)):
        file = tmp_path / f"{n}.backup"
        written = command("backup", tmp_path, source, file, "--json")
        assert written.exit_code == 0, written.output
        restored = command("restore", tmp_path, target, file, "--json")
        assert restored.exit_code == 0, restored.output
        counts = {name: len(rows) for name, rows in expected.items()}
        assert json.loads(written.stdout)["rows"] == counts
        assert json.loads(restored.stdout) == json.loads(written.stdout)
        with opened(target) as database:
            assert everything(database) == expected
            assert rows_of(database, tokens) == []


def test_what_is_new_after_a_restore_gets_new_ids(console_database: Database, made: Path) -> None:
    restore(console_database, made)
    before = rows_of(console_database, streams)
    device = add_device(console_database, "bay-9")
    add_events(console_database, device, [pid(3)])
    Accounts(console_database).add("anna", Role.ADMIN, "correct horse")
    assert len(rows_of(console_database, streams)) == len(before) + 1
    assert [row["name"] for row in rows_of(console_database, devices)] == ["bay-1", "bay-9"]


def test_a_backup_is_of_one_moment(console_database: Database, tmp_path: Path) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(1)])
    seen: list[str] = []

    def write_on(text: str) -> None:
        seen.append(text)
        add_events(console_database, device, [pid(2)])
        add_device(console_database, f"late-{len(seen)}")

    found = backup(console_database, tmp_path / "b", write_on)
    assert seen
    assert (found.rows["devices"], found.rows["events"]) == (1, 1)


@pytest.mark.parametrize("table", ["devices", "users"])
def test_only_an_empty_database_is_restored_into(
    console_database: Database, made: Path, table: str
) -> None:
    if table == "devices":
        add_device(console_database)
    else:
        Accounts(console_database).add("anna", Role.ADMIN, "correct horse")
    before = everything(console_database)
    with pytest.raises(BackupError, match=rf"is not empty \(table {table} has rows\)"):
        restore(console_database, made)
    assert everything(console_database) == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"0005"', b'"0006"', "was made by a newer console"),
        (b'"0005"', b'"0001"', "it has schema 0001"),
        (b'"bay-1"', b"7", "table devices, column name: int is no value"),
        (b'[1,"bay-1"', b'[null,"bay-1"', "table devices, column id: NoneType is no value"),
        (b'[1,"bay-1"', b'[18446744073709551615,"bay-1"', "too large|out of range"),
        (b'"table":"streams"', b'"table":"tokens"', "'tokens' is not one of"),
        (b'"type","stream"', b'"stream","type"', "does not have the columns"),
        (b"[1,1,1,2,", b"[1,77,1,2,", "the database refused"),
    ],
)
def test_other_content_is_refused_and_nothing_is_changed(
    console_url: str, tmp_path: Path, made: Path, old: bytes, new: bytes, says: str
) -> None:
    with opened(console_url) as database:
        with pytest.raises(BackupError, match=says):
            restore(database, changed(made, old, new))
        database.prepare()
        assert not any(everything(database).values())


def test_damage_is_one_line_and_exit_code_1(tmp_path: Path, empty: str, made: Path) -> None:
    whole = made.read_bytes()
    made.write_bytes(whole[:-1])
    assert "it was cut off" in told(command("restore", tmp_path, empty, made))
    made.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    assert "it is damaged" in told(command("restore", tmp_path, empty, made))
    made.write_text("PGDMP")
    assert "not a backup of a Nexus console" in told(command("restore", tmp_path, empty, made))
    assert "No such file" in told(command("restore", tmp_path, empty, tmp_path / "none"))
    assert restore_works(empty, made, whole)


def restore_works(url: str, file: Path, data: bytes) -> bool:
    file.write_bytes(data)
    with opened(url) as database:
        return restore(database, file).rows["events"] == 2


def test_a_full_disk_is_one_line_and_leaves_the_older_backup(tmp_path: Path, made: Path) -> None:
    before = made.read_bytes()
    url = f"sqlite:///{tmp_path}/made.db"
    large = {"topic": "t", "properties": "[]", "size": 1, "reason": "x", "received": 1}
    with opened(url) as database, database.write() as connection:
        connection.execute(insert(unreadable).values(**large, payload=random.randbytes(200_000)))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = settings(tmp_path, url)
    # SQLite's index of its log needs 32 kB.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        result = CliRunner().invoke(main, ["backup", "--config", config, str(made)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "made.backup: cannot be written: File too large" in told(result)
    assert made.read_bytes() == before
    assert not made.with_name("made.backup.new").exists()


def test_what_cannot_be_written_is_one_line_and_exit_code_1(tmp_path: Path, made: Path) -> None:
    url = f"sqlite:///{tmp_path}/made.db"
    nowhere = tmp_path / "no" / "b"
    assert "cannot be written: No such file" in told(command("backup", tmp_path, url, nowhere))
    none = f"sqlite:///{tmp_path}/none.db"
    assert "there is no database at" in told(command("backup", tmp_path, none, tmp_path / "b"))
    assert not (tmp_path / "none.db").exists()


def test_a_database_of_another_schema_is_left_alone(tmp_path: Path, empty: str) -> None:
    with opened(empty) as database, database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
    assert "has schema none" in told(command("backup", tmp_path, empty, tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_people_are_told_that_log_ins_are_not_in_it(tmp_path: Path, made: Path) -> None:
    result = command("backup", tmp_path, f"sqlite:///{tmp_path}/made.db", tmp_path / "b")
    assert result.stdout.endswith("written; log-ins are not in it\n")
    lines = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "b").read_bytes())
    assert b'"tokens"' not in lines
    assert orjson.loads(lines.splitlines()[0])["revision"] == "0005"
