"""How far the delivery of a box's streams has come, and what is missing or lost."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from nexus_agent.protocol import Stream, format_time
from nexus_console import standing
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.presence import birth_of
from nexus_console.remarks import remarks_of

router = APIRouter(tags=["delivery"])


class Gap(BaseModel):
    """Not here yet; the box still has it and sends it again."""

    first: int
    last: int


class Loss(BaseModel):
    """Declared lost by the box. The times are of its first and last event, null if not known."""

    first: int
    last: int
    count: int
    first_time: str | None
    last_time: str | None
    cause: str


class StreamDelivery(BaseModel):
    """Counts are events, but of undecodable and conflicts, which are segments.

    high_water: all up to here is settled, that is stored, declared lost or set aside. sealed: the
    last sequence that the box is known to have used; below high_water its disk is another one.
    """

    epoch: int
    stream: Stream
    high_water: int
    sealed: int
    received: int
    duplicates: int
    gaps: list[Gap]
    losses: list[Loss]
    undecodable: int
    conflicts: int
    closed: bool


class Outbox(BaseModel):
    """What the box said of its outbox when it last introduced itself.

    told: when it said so; oldest: when the oldest event that waited had been recorded.
    """

    told: str | None
    oldest: str | None


class Remark(BaseModel):
    """What the console found out about the delivery; count: how often in a row.

    kind: `epoch`, a new one was ordered; `asked`, events were asked for again; `clock`, the times
    of so many events were set right.
    """

    kind: Literal["epoch", "asked", "clock"]
    text: str
    count: int
    first_seen: str
    last_seen: str


class Delivery(BaseModel):
    """remarks: the newest first."""

    outbox: Outbox
    streams: list[StreamDelivery]
    remarks: list[Remark]


@router.get("/devices/{device}/delivery")
def show_delivery(device: DeviceDep, services: ServicesDep) -> Delivery:
    """Every (epoch, stream) of a box."""
    with services.database.read() as connection:
        lanes = standing.lane_states(connection, device.id)
        remarks = remarks_of(connection, device.id)
    birth = birth_of(device)
    return Delivery(
        outbox=Outbox(
            told=birth.time if birth else None,
            oldest=birth.oldest if birth else None,
        ),
        streams=[
            StreamDelivery(
                epoch=lane.epoch,
                stream=lane.stream,
                high_water=lane.high_water,
                sealed=lane.sealed,
                received=lane.received,
                duplicates=lane.duplicates,
                gaps=[Gap(first=first, last=last) for first, last in lane.gaps],
                losses=[_loss(loss) for loss in lane.losses],
                undecodable=lane.undecodable,
                conflicts=lane.conflicts,
                closed=lane.closed,
            )
            for lane in lanes
        ],
        remarks=[
            Remark(
                kind=remark.kind,
                text=remark.text,
                count=remark.count,
                first_seen=format_time(remark.first_seen),
                last_seen=format_time(remark.last_seen),
            )
            for remark in remarks
        ],
    )


def _loss(loss: standing.Loss) -> Loss:
    return Loss(
        first=loss.first,
        last=loss.last,
        count=loss.count,
        first_time=None if loss.first_time is None else format_time(loss.first_time),
        last_time=None if loss.last_time is None else format_time(loss.last_time),
        cause=loss.cause,
    )
