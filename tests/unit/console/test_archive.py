"""The backup's file: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import stat
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nexus_console import archive
from nexus_console.archive import FORMAT, ArchiveError, Header, Reader, Writer

HEADER = Header(format=FORMAT, version=1, revision="0002", created="2026-01-02", console="1")
ROWS: list[list[Any]] = [[1, "bay-1", None, True, 1.5], [2**63 - 1, 'ä"\n', "x", False, -0.0]]
COLUMNS = ["id", "name", "reason", "online", "load"]


def write(file: Path, rows: list[list[Any]] = ROWS) -> bytes:
    with Writer(file, HEADER) as writer:
        writer.table("devices", COLUMNS)
        writer.rows(rows)
        writer.table("empty", ["id"])
    return file.read_bytes()


def read(data: bytes) -> list[tuple[str, list[str], list[list[Any]]]]:
    reader = Reader(io.BytesIO(data))
    reader.verify()
    return list(reader.rows())


def sealed(*lines: bytes) -> bytes:
    """A file whose checksum is right, whatever is in it."""
    frame = zstandard.compress(b"".join(line + b"\n" for line in lines))
    return frame + archive._SEAL_HEAD + hashlib.sha256(frame).digest()


HEAD = HEADER.model_dump_json().encode()
GOOD = (HEAD, b'{"table":"t","columns":["id"]}', b"[1]", b'{"rows":{"t":1}}')


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("archive") / "b")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path / "b")) == [
        ("devices", COLUMNS, []),
        ("devices", COLUMNS, ROWS),
        ("empty", ["id"], []),
    ]


def test_many_rows_come_in_parts(tmp_path: Path) -> None:
    rows = [[n, "x", None, True, 0.5] for n in range(1_201)]
    parts = [part for name, _, part in read(write(tmp_path / "b", rows)) if name == "devices"]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) == archive.ROWS_AT_ONCE


def test_only_its_owner_can_read_it_and_an_older_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("older")
    (tmp_path / "b.new").write_text("left behind")
    (tmp_path / "b.new").chmod(0o666)
    write(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_what_is_broken_off_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("older")
    with pytest.raises(RuntimeError), Writer(tmp_path / "b", HEADER):
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "older"


@given(data=st.data())
def test_any_change_is_refused(valid: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(valid) - 1))
    upto = data.draw(st.integers(at, min(len(valid), at + 8)))
    changed = valid[:at] + data.draw(st.binary(max_size=8)) + valid[upto:]
    if changed != valid:
        with pytest.raises(ArchiveError):
            read(changed)


@given(length=st.integers(min_value=0))
def test_any_truncation_is_refused(valid: bytes, length: int) -> None:
    with pytest.raises(ArchiveError):
        read(valid[: length % len(valid)])


@given(st.binary())
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        read(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
LINE = st.sampled_from(GOOD) | st.binary() | JSON.map(orjson.dumps)


@given(st.lists(LINE, max_size=6))
def test_other_lines_under_a_right_checksum_end_in_an_error_or_are_rows(lines: list[bytes]) -> None:
    try:
        read(sealed(*lines))
    except ArchiveError:
        return
    assert lines[0] == HEAD


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "not a backup of a Nexus console"),
        ((b'{"format":"other"}',), "not a backup of a Nexus console"),
        ((HEAD.replace(b'"version":1', b'"version":2'), *GOOD[1:]), "its format is version 2"),
        (GOOD[:3], "its last line is missing"),
        ((HEAD, b"[1]"), "does not have its table's columns"),
        ((*GOOD[:2], b"[1,2]"), "does not have its table's columns"),
        ((*GOOD[:2], b"[1"), "a row in it is not JSON"),
        ((*GOOD[:2], *GOOD[1:]), "table 't' is in it twice"),
        ((*GOOD[:3], b'{"rows":{"t":2}}'), "does not hold the rows"),
        ((*GOOD, b"[1]"), "does not hold the rows"),
        ((*GOOD[:3], b'{"rows":1}'), "its last line is not one"),
        ((HEAD, b"hello"), "neither a row nor the name of a table"),
    ],
)
def test_what_is_wrong_is_said(lines: tuple[bytes, ...], says: str) -> None:
    with pytest.raises(ArchiveError, match=says):
        read(sealed(*lines))


def test_a_window_that_would_eat_the_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = compressor.compress(HEAD + b"\n") + compressor.flush()
    with pytest.raises(ArchiveError, match="cannot be decompressed"):
        read(frame + archive._SEAL_HEAD + hashlib.sha256(frame).digest())


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_LINE", 1_000)
    with pytest.raises(ArchiveError, match="too long"):
        read(sealed(*GOOD[:2], b"[" + b" " * 2_000 + b"1]"))


def test_the_usual_tool_reads_it(tmp_path: Path) -> None:
    write(tmp_path / "b")
    try:
        done = subprocess.run(["zstd", "-dc", tmp_path / "b"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("zstd is not installed")
    assert orjson.loads(done.stdout.splitlines()[-1]) == {"rows": {"devices": 2, "empty": 0}}
