"""Messages as a box makes them, and a console's database to put them into."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from nexus_agent.protocol import (
    Presence,
    Segment,
    Stamp,
    Stream,
    Topic,
    encode_events,
    pack,
    parse_time,
    seal,
)
from nexus_console.blocks import Stored, with_lines
from nexus_console.db.engine import Database
from nexus_console.db.models import events
from nexus_console.intake import Inbound, Intake, Outcome

DEVICE = "bay-1"
NOW = parse_time("2026-01-02T03:04:05Z")
BOOT = "4c1f0c9e-2f58-4f0e-9d5e-6a4c9f1f2b3d"


def sealed(
    first: int,
    *data: Any,
    stream: Stream = Stream.EVENT,
    epoch: int = 1,
    event_type: str = "test.value",
    device: str = DEVICE,
    time: int = NOW,
    mono: int = 1_000_000_000,
    boot: str = BOOT,
    synced: bool = True,
) -> Segment:
    """A segment of events with *data*, from sequence *first* on."""
    stamp = Stamp(time, mono, boot, synced)
    events = [(event_type, one) for one in data]
    tails = encode_events(device=device, source="test", stamp=stamp, events=events)
    return seal(stream=stream, epoch=epoch, first=first, tails=tails, times=(time, time))


def run(first: int, last: int, **more: Any) -> Segment:
    """A segment first to last whose events hold their own number."""
    return sealed(first, *range(first, last + 1), **more)


def damaged(segment: Segment) -> Segment:
    """The same header over bytes that are not what it says."""
    return replace(segment, payload=b"x" * len(segment.payload))


def message(
    *segments: Segment, device: str = DEVICE, received: int = NOW, session: str = ""
) -> Inbound:
    properties, payload = pack(segments, session)
    topic = Topic(device).data(segments[0].stream)
    return Inbound(topic, payload, properties, False, received, lambda: None)


def presence(
    *, device: str = DEVICE, received: int = NOW, retained: bool = False, **fields: Any
) -> Inbound:
    payload = Presence(**fields).encode()
    return Inbound(Topic(device).presence, payload, [], retained, received, lambda: None)


class _UndoError(Exception):
    """Ends a transaction."""


def _take(connection: Connection, messages: Iterable[Inbound]) -> Outcome:
    intake = Intake(connection)
    for one in messages:
        intake.take(one)
    return intake.finish()


class Store:
    """A console's database, written as the writer does it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def take(self, *messages: Inbound) -> Outcome:
        """All of *messages* in one transaction."""
        with self.database.write() as connection:
            return _take(connection, messages)

    def take_back(self, *messages: Inbound) -> None:
        """All of *messages* in one transaction that is not committed."""
        with suppress(_UndoError), self.database.write() as connection:
            _take(connection, messages)
            raise _UndoError

    def rows(self, table: Any) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def stored(self) -> list[Stored]:
        """Every event with its line, in the order of arrival."""
        with self.database.read() as connection:
            rows = connection.execute(select(events).order_by(events.c.position)).all()
            return list(with_lines(connection, rows))

    def sequences(self, stream: Stream = Stream.EVENT) -> list[int]:
        """Sequences of the stored events of a stream, sorted, with repeats if there were any."""
        code = list(Stream).index(stream)
        return sorted(row["seq"] for row in self.rows(events) if row["stream"] == code)
