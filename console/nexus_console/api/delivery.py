"""How far the delivery of a box's streams has come, and what is missing or lost."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from nexus_agent.protocol import Stream
from nexus_console.api.access import DeviceDep, ServicesDep
from nexus_console.lanes import lane_states
from nexus_console.presence import birth_of

router = APIRouter(tags=["delivery"])


class Gap(BaseModel):
    """Not here yet; the box still has it and sends it again."""

    first: int
    last: int


class Loss(BaseModel):
    """Declared lost by the box."""

    model_config = ConfigDict(from_attributes=True)

    first: int
    last: int
    cause: str


class StreamDelivery(BaseModel):
    """Counts are events, but of undecodable and conflicts, which are segments.

    high_water: all up to here is settled, that is stored, declared lost or set aside.
    """

    epoch: int
    stream: Stream
    high_water: int
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


class Delivery(BaseModel):
    outbox: Outbox
    streams: list[StreamDelivery]


@router.get("/devices/{device}/delivery")
def show_delivery(device: DeviceDep, services: ServicesDep) -> Delivery:
    """Every (epoch, stream) of a box."""
    with services.database.read() as connection:
        lanes = lane_states(connection, device.id)
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
                received=lane.received,
                duplicates=lane.duplicates,
                gaps=[Gap(first=first, last=last) for first, last in lane.gaps],
                losses=[Loss.model_validate(loss) for loss in lane.losses],
                undecodable=lane.undecodable,
                conflicts=lane.conflicts,
                closed=lane.closed,
            )
            for lane in lanes
        ],
    )
