"""The raw ceiling: what a bare loop makes of the same events, with plain sqlite3 and nothing else.

`python ceiling.py FOLDER COUNT` prints [events a second, CPU seconds, highest resident memory in
bytes].
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard
from figure import peak_memory, readings

_SEGMENT: Final = 1_000
_READINGS: Final = 5_000


def loop(file: Path, count: int) -> tuple[float, float]:
    """Encode, compress, write, read and delete *count* events: a segment is a transaction.

    WAL and synchronous=FULL: each is on the disk before the next is begun. Returns events a second
    and CPU seconds.
    """
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE segment (id INTEGER PRIMARY KEY, payload BLOB)")
    compressor, load = zstandard.ZstdCompressor(level=3), readings(_READINGS)
    before = 0
    started, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, _SEGMENT):
        payload = compressor.compress(_lines(load, start, min(_SEGMENT, count - start)))
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO segment VALUES (?,?)", (start + 1, payload))
        if before:
            connection.execute("SELECT payload FROM segment WHERE id=?", (before,)).fetchone()
            connection.execute("DELETE FROM segment WHERE id=?", (before,))
        connection.execute("COMMIT")
        before = start + 1
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    connection.close()
    return count / elapsed, cpu


def _lines(load: list[tuple[str, Any]], start: int, count: int) -> bytes:
    """Events as an agent would send them, one a line."""
    repeated = (load[number % len(load)] for number in range(start, start + count))
    return b"\n".join(
        orjson.dumps(
            {
                "specversion": "1.0",
                "id": f"1/telemetry/{number}",
                "source": "/bench/bench",
                "type": kind,
                "time": "2026-11-23T00:00:00.000000Z",
                "mono": "1.000000",
                "boot": "eebf0257-c1cc-4e29-bf00-bca2699f6e37",
                "synced": True,
                "data": {"n": number, **data},
            }
        )
        for number, (kind, data) in enumerate(repeated, start)
    )


def main() -> None:
    rate, cpu = loop(Path(sys.argv[1]) / "raw.db", int(sys.argv[2]))
    print(json.dumps([rate, cpu, peak_memory("self")]))


if __name__ == "__main__":
    main()
