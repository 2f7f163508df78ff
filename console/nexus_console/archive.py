"""The file that a backup is: a zstd frame of JSON lines, and a frame with its checksum.

    {"format": "nexus-console-backup", "version": 1, "revision": "0002", "created": …}
    {"table": "devices", "columns": ["id", "name", …]}
    [1, "bay-1", …]
    …
    {"rows": {"devices": 1, …}}

Bytes are base64. The last 40 bytes are a skippable frame (RFC 8878 section 3.1.2) with the SHA-256
of everything before it, so that `zstd -d` reads the file and no changed byte goes unseen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson
import zstandard
from pydantic import BaseModel, ValidationError

FORMAT: Final = "nexus-console-backup"
VERSION: Final = 1
MAX_LINE: Final = 64 * 1024 * 1024
"""The longest row that is read: more than any message that a console takes in."""
MAX_WINDOW: Final = 8 * 1024 * 1024
"""What a reader gives zstd to look back on; level 3 writes with 2 MB."""
ROWS_AT_ONCE: Final = 500

_LEVEL: Final = 3
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SEAL_HEAD: Final = b"\x50\x2a\x4d\x18" + (32).to_bytes(4, "little")
_SEAL_BYTES: Final = len(_SEAL_HEAD) + 32
_CHUNK: Final = 1024 * 1024


class ArchiveError(Exception):
    """Not a backup, or not one that can be read; the message says why."""


class Header(BaseModel):
    """The first line. created is RFC 3339; console is the version that made it."""

    format: str
    version: int
    revision: str
    created: str
    console: str


class _Table(BaseModel):
    table: str
    columns: list[str]


class _End(BaseModel):
    rows: dict[str, int]


class Writer:
    """Writes FILE.new, and gives it its name only once it is whole and on the disk.

    Raises OSError; then, as with any other exception, what was written is removed again.
    """

    def __init__(self, file: Path, header: Header) -> None:
        self._file, self._new = file, file.with_name(f"{file.name}.new")
        self._hash = hashlib.sha256()
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        self._header = header
        self._rows: dict[str, int] = {}
        self._out: BinaryIO

    def __enter__(self) -> Self:
        # One that was left behind may be readable for others.
        self._new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._out = os.fdopen(os.open(self._new, flags, 0o600), "wb")
        self._line(self._header)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            # Gone already if it got its name. On a full disk it is the closing that fails.
            self._new.unlink(missing_ok=True)
            self._out.close()

    def table(self, name: str, columns: Sequence[str]) -> None:
        """What follows are rows of this table."""
        self._rows[name] = 0
        self._line(_Table(table=name, columns=list(columns)))

    def rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Rows of the table begun last: whole numbers, floats, texts, booleans, bytes and None."""
        lines = [orjson.dumps(list(row), default=_base64) for row in rows]
        name = next(reversed(self._rows))
        self._rows[name] += len(lines)
        self._put(b"".join(line + b"\n" for line in lines))

    @property
    def counts(self) -> dict[str, int]:
        """Rows written so far, by table."""
        return dict(self._rows)

    def _finish(self) -> None:
        self._line(_End(rows=self._rows))
        self._write(self._zstd.flush())
        self._write(_SEAL_HEAD + self._hash.digest())
        self._out.flush()
        os.fsync(self._out.fileno())
        self._new.replace(self._file)
        folder = os.open(self._file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _line(self, model: BaseModel) -> None:
        self._put(model.model_dump_json().encode() + b"\n")

    def _put(self, data: bytes) -> None:
        self._write(self._zstd.compress(data))

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._out.write(data)


class Reader:
    """Reads a backup. Every method raises ArchiveError for what is none, OSError for the disk.

    Nothing is believed before `verify` has read the whole file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    @property
    def position(self) -> int:
        """How many bytes of the file have been read."""
        return self._file.tell()

    def verify(self) -> Header:
        """Compare the checksum with every byte, and read the first line."""
        self._file.seek(0)
        if self._file.read(len(_ZSTD_MAGIC)) != _ZSTD_MAGIC:
            raise ArchiveError("it is not a backup of a Nexus console")
        body = self.size - _SEAL_BYTES
        self._file.seek(max(body, 0))
        seal = self._file.read(_SEAL_BYTES)
        if not seal.startswith(_SEAL_HEAD):
            raise ArchiveError("its end is missing: it was cut off, or is no backup of a console")
        self._file.seek(0)
        digest = hashlib.sha256()
        while body > 0 and (chunk := self._file.read(min(_CHUNK, body))):
            digest.update(chunk)
            body -= len(chunk)
        if seal != _SEAL_HEAD + digest.digest():
            raise ArchiveError("it is damaged: its checksum does not match")
        return _header(next(self._lines(), b""))

    def rows(self) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
        """(table, columns, some rows of it), in the order in which they were written.

        A table without rows comes once, with none. The end is checked before this ends.
        """
        lines = self._lines()
        _header(next(lines, b""))
        counts: dict[str, int] = {}
        table: _Table | None = None
        rows: list[list[Any]] = []
        size = 0
        for line in lines:
            is_row = line.startswith(b"[")
            if is_row:
                rows.append(_row(line, table))
                size += len(line)
            if table and rows and (not is_row or len(rows) == ROWS_AT_ONCE or size > _CHUNK):
                counts[table.table] += len(rows)
                yield table.table, table.columns, rows
                rows, size = [], 0
            if is_row:
                continue
            if line.startswith(b'{"rows"'):
                _check_end(line, counts, lines)
                return
            table = _table(line, counts)
            counts[table.table] = 0
            yield table.table, table.columns, []
        raise ArchiveError("its last line is missing")

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        # It has to end with the first frame: what follows is the checksum.
        zstd = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        with zstd.stream_reader(self._file, read_size=_CHUNK, closefd=False) as stream:
            lines = io.BufferedReader(_Raw(stream), _CHUNK)
            while line := lines.readline(MAX_LINE + 1):
                if not line.endswith(b"\n"):
                    raise ArchiveError("a line in it is too long or has no end")
                yield line


class _Raw(io.RawIOBase):
    """A zstd stream as io wants it, whose errors are ours."""

    def __init__(self, stream: zstandard.ZstdDecompressionReader) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._stream.readinto(buffer)
        except zstandard.ZstdError as error:
            raise ArchiveError(f"it cannot be decompressed: {error}") from None


def _header(line: bytes) -> Header:
    try:
        header = Header.model_validate_json(line)
    except ValidationError:
        raise ArchiveError("it is not a backup of a Nexus console") from None
    if header.format != FORMAT:
        raise ArchiveError("it is not a backup of a Nexus console")
    if header.version != VERSION:
        raise ArchiveError(f"its format is version {header.version}, and only {VERSION} is known")
    return header


def _table(line: bytes, counts: dict[str, int]) -> _Table:
    try:
        table = _Table.model_validate_json(line)
    except ValidationError:
        raise ArchiveError("a line in it is neither a row nor the name of a table") from None
    if table.table in counts:
        raise ArchiveError(f"table {table.table!r} is in it twice")
    return table


def _row(line: bytes, table: _Table | None) -> list[Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ArchiveError(f"a row in it is not JSON: {error}") from None
    if table is None or len(row) != len(table.columns):
        raise ArchiveError("a row in it does not have its table's columns")
    return list(row)


def _check_end(line: bytes, counts: dict[str, int], rest: Iterator[bytes]) -> None:
    try:
        end = _End.model_validate_json(line)
    except ValidationError:
        raise ArchiveError("its last line is not one") from None
    if end.rows != counts or next(rest, None) is not None:
        raise ArchiveError("it does not hold the rows that its end tells of")


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError


def from_base64(text: str) -> bytes:
    """The bytes that a row holds as *text*. Raises ArchiveError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ArchiveError("bytes in it are not base64") from None
