"""How far the delivery of a device's streams has come, for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from nexus_agent.protocol import Stream
from nexus_console.db.models import STREAMS, losses, ranges, streams
from nexus_console.ranges import Coverage, Span


@dataclass(frozen=True, slots=True)
class Loss:
    """A range that the box has declared lost, with its reason.

    first_time and last_time: when its first and last event were recorded (ns), if that is known.
    """

    first: int
    last: int
    cause: str
    first_time: int | None = None
    last_time: int | None = None

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class LaneState:
    """What is known of a lane. gaps are what is missing below the highest number heard of.

    sealed: the last sequence that today's box is known to have used.
    """

    epoch: int
    stream: Stream
    high_water: int
    sealed: int
    received: int
    duplicates: int
    conflicts: int
    undecodable: int
    gaps: list[Span]
    losses: list[Loss]
    closed: bool


def lane_states(connection: Connection, device_id: int) -> list[LaneState]:
    """Every lane of a device, by epoch and then by urgency of the stream."""
    rows = connection.execute(
        select(streams)
        .where(streams.c.device_id == device_id)
        .order_by(streams.c.epoch, streams.c.stream)
    ).all()
    above = _by_lane(connection, ranges, device_id)
    lost = _by_lane(connection, losses, device_id)
    return [
        LaneState(
            epoch=row.epoch,
            stream=STREAMS[row.stream],
            high_water=row.high_water,
            sealed=row.sealed,
            received=row.received,
            duplicates=row.duplicates,
            conflicts=row.conflicts,
            undecodable=row.undecodable,
            gaps=Coverage(row.high_water, [(r.first, r.last) for r in above.get(row.id, [])]).gaps(
                until=row.closed or 0
            ),
            losses=[
                Loss(r.first, r.last, r.cause, r.first_time, r.last_time)
                for r in lost.get(row.id, [])
            ],
            closed=row.closed is not None,
        )
        for row in rows
    ]


def _by_lane(connection: Connection, table: Any, device_id: int) -> dict[int, list[Row[Any]]]:
    rows = connection.execute(
        select(table)
        .join(streams, and_(streams.c.id == table.c.stream_id, streams.c.device_id == device_id))
        .order_by(table.c.stream_id, table.c.first)
    )
    found: dict[int, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.stream_id, []).append(row)
    return found
