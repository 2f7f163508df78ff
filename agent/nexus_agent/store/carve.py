"""Finding sealed segments in the raw pages of a damaged SQLite file.

Every page that looks like a leaf of a table is read cell by cell, whatever the tables' roots say,
and so is every page in the write-ahead log. A row counts only if the CRC over its header, its
stream and its payload fits, so a damaged page costs the segments on it and nothing else. The file
format is described at sqlite.org/fileformat2.html; sections are named below.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from nexus_agent.protocol import Segment, SegmentError, Stream, verify
from nexus_agent.store.segments import epoch_of, sequence

Bytes: TypeAlias = bytes | mmap.mmap

PAGE_SIZE: Final = 4096
"""The agent's databases have SQLite's default; the header that says so may be what is damaged."""

_LEAF: Final = 0x0D
"""Section 1.6: the flag of a leaf page of a table b-tree."""
_HEADER: Final = 100
"""Section 1.3: the file's header, on the first page."""
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
"""Section 4.1: the headers of the write-ahead log and of each of its frames."""
_COLUMNS: Final = 8
_LARGEST_PAYLOAD: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A segment whose CRC fits, and whether its times are of a synchronised clock."""

    segment: Segment
    synced: bool


def carve(database: Path, log: Path) -> Iterator[Found]:
    """Every sound segment in the file and its write-ahead log; the same one may come twice."""
    with _mapped(database) as file, _mapped(log) as frames:
        pages = _Pages(file, frames)
        for page in pages.all():
            yield from _rows(page, pages)


class _Pages:
    """The pages of a file, and over them the versions that its write-ahead log holds."""

    def __init__(self, file: Bytes, log: Bytes) -> None:
        self._file, self._log = file, log
        self._frames: dict[int, list[int]] = {}
        self._left: dict[int, list[int]] = {}
        """Frames of the log before it began anew, which it has not overwritten yet."""
        salts = log[16:24]
        step = _FRAME_HEADER + PAGE_SIZE
        for start in range(_LOG_HEADER, len(log) - step + 1, step):
            number = int.from_bytes(log[start : start + 4], "big")
            frames = self._frames if log[start + 8 : start + 16] == salts else self._left
            frames.setdefault(number, []).append(start + _FRAME_HEADER)

    def all(self) -> Iterator[bytes]:
        """Every page, its logged versions after the one in the file."""
        for start in range(0, len(self._file), PAGE_SIZE):
            page = self._file[start : start + PAGE_SIZE]
            yield page[_HEADER:] if start == 0 else page
        for versions in (*self._left.values(), *self._frames.values()):
            for start in versions:
                yield self._log[start : start + PAGE_SIZE]

    def versions(self, number: int) -> list[bytes]:
        """What page *number* may hold: as the log has it, the file, the log before that."""
        return [
            *self._logged(self._frames, number),
            *self.filed(number),
            *self._logged(self._left, number),
        ]

    def _logged(self, frames: dict[int, list[int]], number: int) -> list[bytes]:
        """The newest first."""
        return [self._log[at : at + PAGE_SIZE] for at in reversed(frames.get(number, []))]

    def filed(self, number: int) -> list[bytes]:
        """Page *number* as the file has it."""
        start = (number - 1) * PAGE_SIZE
        page = self._file[start : start + PAGE_SIZE] if number >= 1 else b""
        return [page] if page else []


def _rows(page: bytes, pages: _Pages) -> Iterator[Found]:
    if len(page) < 8 or page[0] != _LEAF:
        return
    # Section 1.6: the number of cells, and behind the header a pointer to each.
    count = int.from_bytes(page[3:5], "big")
    skipped = PAGE_SIZE - len(page)
    for pointer in range(8, min(8 + 2 * count, len(page) - 1), 2):
        start = int.from_bytes(page[pointer : pointer + 2], "big") - skipped
        if 0 < start < len(page):
            try:
                found = _row(page, start, pages)
            except (IndexError, ValueError):
                continue  # a cell that runs out of its page is no cell
            if found is not None:
                yield found


def _row(page: bytes, start: int, pages: _Pages) -> Found | None:
    """Section 1.6, table leaf cell: size, row id, record, first page of what does not fit."""
    size, start = _varint(page, start)
    identity, start = _varint(page, start)
    if not 0 < size <= _LARGEST_PAYLOAD or identity <= 0:
        return None
    # Section 1.6: how much of a record stays on the page; U is the usable size.
    most, least = PAGE_SIZE - 35, (PAGE_SIZE - 12) * 32 // 255 - 23
    local = size
    if size > most:
        local = least + (size - least) % (PAGE_SIZE - 4)
        local = local if local <= most else least
    record = page[start : start + local]
    if len(record) < local:
        return None
    if local == size:
        return _segment(identity, record)
    overflow = int.from_bytes(page[start + local : start + local + 4], "big")
    for rest in _chains(overflow, size - local, pages):
        found = _segment(identity, record + rest)
        if found is not None:
            return found
    return None


def _chains(number: int, size: int, pages: _Pages) -> Iterator[bytes]:
    """Section 1.6, overflow pages: the number of the next, then content.

    Of several versions of a page: the newest of each first, then the file's alone, then the oldest.
    """
    for look, pick in ((pages.versions, 0), (pages.filed, 0), (pages.versions, -1)):
        parts: list[bytes] = []
        left, following = size, number
        while left > 0 and following:
            versions = look(following)
            if not versions:
                break
            page = versions[pick]
            parts.append(page[4 : 4 + min(left, PAGE_SIZE - 4)])
            left -= len(parts[-1])
            following = int.from_bytes(page[:4], "big")
        if left == 0:
            yield b"".join(parts)


def _segment(identity: int, record: bytes) -> Found | None:
    """Section 2.1: a record is a header of serial types, then the values."""
    length, position = _varint(record, 0)
    types: list[int] = []
    while position < length:
        kind, position = _varint(record, position)
        types.append(kind)
    # The row id stands in for the first column, which is stored as NULL; the last is a BLOB.
    if len(types) != _COLUMNS or types[0] != 0 or types[7] < 12 or types[7] % 2:
        return None
    numbers: list[int] = []
    for kind in types[1:7]:
        value, position = _integer(record, position, kind)
        numbers.append(value)
    payload = record[position : position + (types[7] - 12) // 2]
    last, count, first_time, last_time, synced, crc = numbers
    for stream in Stream:
        segment = Segment(
            stream=stream,
            epoch=epoch_of(identity),
            first=sequence(identity),
            last=last,
            count=count,
            first_time=first_time,
            last_time=last_time,
            crc=crc,
            payload=payload,
        )
        try:
            verify(segment)
        except SegmentError:
            continue
        return Found(segment, synced == 1)
    return None


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """Section 1.6: seven bits a byte, at most nine bytes, the ninth whole."""
    value = 0
    for offset in range(8):
        byte = data[start + offset]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, start + offset + 1
    return value << 8 | data[start + 8], start + 9


_WIDTHS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _integer(record: bytes, start: int, kind: int) -> tuple[int, int]:
    """Section 2.1: serial types 1 to 6 are integers of a width, 8 and 9 are 0 and 1."""
    if kind in {8, 9}:
        return kind - 8, start
    width = _WIDTHS.get(kind)
    if width is None or start + width > len(record):
        raise ValueError("not an integer")
    return int.from_bytes(record[start : start + width], "big", signed=True), start + width


@contextmanager
def _mapped(path: Path) -> Iterator[Bytes]:
    """The file's bytes without reading it whole; none where there is no file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (FileNotFoundError, ValueError):  # ValueError: an empty file cannot be mapped
        yield b""
