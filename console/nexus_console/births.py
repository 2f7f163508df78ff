"""What a birth document says of a box's streams, compared with what this console has of them.

A box that has let go of what is not here (this console is new, or was restored from a backup) is
asked for it again. A box that has sealed less than is here runs from another disk (a restored one,
or a copy); it is told to number its events anew, in an epoch that nobody has used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlalchemy import Connection, func, select

from nexus_agent.protocol import MAX_EPOCH, MAX_SEQUENCE, MAX_WANTED, Presence, Stream
from nexus_console.db.models import STREAMS, streams
from nexus_console.eventlog import Device
from nexus_console.lanes import Lane, Order
from nexus_console.remarks import remark

OpenLane: TypeAlias = Callable[[Device, int, Stream], Lane]

_ANOTHER_DISK: Final = "its disk was restored or copied"


@dataclass(frozen=True, slots=True)
class _Told:
    """What a birth says of one stream of one epoch.

    last: the last sequence that it has sealed; released: up to where it sends nothing by itself.
    """

    epoch: int
    stream: Stream
    last: int
    released: int
    closed: bool


def take_birth(
    connection: Connection,
    open_lane: OpenLane,
    device: Device,
    birth: Presence,
    *,
    anew: bool,
    retained: bool,
    received: int,
) -> None:
    """Bring the lanes in line with *birth*. What is to be said to the box, its lanes have then.

    anew: it is of a new session. retained: it is from the broker's memory, maybe outdated.
    """
    rows = connection.execute(
        select(streams.c.epoch, streams.c.stream).where(streams.c.device_id == device.id)
    )
    known = {(row.epoch, STREAMS[row.stream]) for row in rows}
    asked: dict[Stream, int] = {}
    for told in _told(birth):
        if told.last == 0 and (told.epoch, told.stream) not in known:
            continue  # nothing was ever there
        lane = open_lane(device, told.epoch, told.stream)
        lane.stands_at(told.last, told.released, anew=anew)
        if told.closed:
            lane.close(told.last)
        lane.news |= anew or retained or lane.acknowledged > told.released
        if retained:
            continue
        lane.ask_for(lane.unsettled(told.released)[:MAX_WANTED])
        for first, last in lane.want:
            asked[told.stream] = asked.get(told.stream, 0) + last - first + 1
        if lane.is_ahead and not told.closed:
            reason = f"{told.stream} {told.epoch}/{told.last} is behind what was received before"
            order_epoch(connection, device, lane, reason, received)
    if asked:
        counts = " and ".join(f"{count:,} {stream}" for stream, count in sorted(asked.items()))
        text = f"asked the box for {counts} events again: this console did not have them"
        remark(connection, device.id, "asked", text, received)


def order_epoch(
    connection: Connection, device: Device, lane: Lane, reason: str, received: int
) -> None:
    """Let *lane*'s acknowledgement order a new epoch, if no other lane of *device* does so."""
    if device.ordered:
        return
    device.ordered = True
    highest = select(func.max(streams.c.epoch)).where(streams.c.device_id == device.id)
    lane.order_epoch(Order(f"{reason}: {_ANOTHER_DISK}", connection.execute(highest).scalar_one()))
    text = f"{reason}: {_ANOTHER_DISK}. A new epoch was ordered."
    remark(connection, device.id, "epoch", text[0].upper() + text[1:], received)


def _told(birth: Presence) -> Iterator[_Told]:
    """What of *birth* is within bounds."""
    if birth.epoch is not None:
        following, released = birth.next or {}, birth.released or {}
        for stream in Stream:
            through = released.get(stream, 0)
            last = following.get(stream, through + 1) - 1
            if 0 <= through <= last <= MAX_SEQUENCE and stream in following | released:
                yield _Told(birth.epoch, stream, last, through, closed=False)
    for epoch, lasts in (birth.closed or {}).items():
        behind = (birth.closed_released or {}).get(epoch, {})
        for stream, last in lasts.items():
            through = behind.get(stream, last)
            if 1 <= epoch <= MAX_EPOCH and 0 <= through <= last <= MAX_SEQUENCE:
                yield _Told(epoch, stream, last, through, closed=True)
