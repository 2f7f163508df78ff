"""One transaction's worth of messages from boxes, written into the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from sqlalchemy import Connection, delete, func, insert, select, update

from nexus_agent.protocol import (
    Event,
    Lines,
    Loss,
    Presence,
    ProtocolError,
    Segment,
    Stream,
    UserProperties,
    decode_event,
    parse_up,
    session_of,
    unpack,
)
from nexus_console import commands, presence
from nexus_console.births import order_epoch, take_birth
from nexus_console.clocks import Clocks
from nexus_console.db.engine import storable
from nexus_console.db.models import devices, unreadable
from nexus_console.eventlog import Device, EventLog
from nexus_console.lanes import Lane, Order
from nexus_console.live import PRESENCE, Change
from nexus_console.ranges import Span

COMMAND_RESULT: Final = "command.result"
DELIVERY_LOSS: Final = "delivery.loss"
MAX_UNREADABLE: Final = 200
MAX_UNREADABLE_BYTES: Final = 256 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message as it came from the broker. received is in ns since 1970.

    `done` tells the broker that the message is safe; calling it late or twice does no harm.
    """

    topic: str
    payload: bytes
    properties: UserProperties
    retained: bool
    received: int
    done: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far one stream of one epoch of a device is committed, and what else to say with that.

    session: that of the box's birth which it answers; None before any. want: what the box should
    send again.
    """

    device: str
    epoch: int
    stream: Stream
    seq: int
    session: str | None = None
    want: tuple[Span, ...] = ()
    order: Order | None = None


@dataclass(slots=True)
class Outcome:
    """What is to be told after the commit."""

    marks: list[Mark] = field(default_factory=list)
    came_up: set[str] = field(default_factory=set)
    changes: set[Change] = field(default_factory=set)
    events: int = 0


class Intake:
    """Takes messages within the transaction of *connection*; `finish` writes what is left."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._devices: dict[str, Device] = {}
        self._lanes: dict[tuple[str, int, Stream], Lane] = {}
        self._clocks = Clocks(connection)
        self._log = EventLog(connection, self._clocks)
        self._came_up: set[str] = set()
        self._changes: set[Change] = set()
        self._received = 0

    def take(self, message: Inbound) -> None:
        """Take one message in. One that is not protocol v1 is kept as it is for people to see."""
        self._received = max(self._received, message.received)
        try:
            name, kind = parse_up(message.topic)
            if kind == "presence":
                if message.payload:  # an empty retained message only clears the topic
                    self._presence(name, Presence.decode(message.payload), message)
                return
            parts = unpack(kind, message.properties, message.payload)
        except ProtocolError as error:
            self.keep_unreadable(message, str(error))
            return
        device = self._device(name, message.received)
        session = session_of(message.properties)
        # Before the first birth nobody knows whose session that is: the box sends again behind it.
        sure = session in {None, device.session}
        for segment in parts:
            self._segment(device, segment, message.received, sure=sure)
        if not message.retained:
            device.heard = message.received

    def keep_unreadable(self, message: Inbound, reason: str) -> None:
        """Keep a message that cannot be taken in; of these, only the newest few stay."""
        _log.warning("unreadable message", topic=message.topic, reason=reason)
        self._connection.execute(
            insert(unreadable).values(
                topic=storable(message.topic),
                reason=storable(reason),
                properties=storable(repr(message.properties)),
                payload=message.payload[:MAX_UNREADABLE_BYTES],
                size=len(message.payload),
                received=message.received,
            )
        )
        newest = select(func.max(unreadable.c.id)).scalar_subquery()
        self._connection.execute(
            delete(unreadable).where(unreadable.c.id <= newest - MAX_UNREADABLE)
        )

    def finish(self) -> Outcome:
        """Write events, marks and devices. The transaction may be committed then."""
        self._log.flush()
        for lane in self._lanes.values():
            lane.save()
        for device in self._devices.values():
            values: dict[str, Any] = {"events": device.events}
            if device.heard is not None:
                values["last_seen"] = device.heard
            self._connection.execute(
                update(devices).where(devices.c.id == device.id).values(values)
            )
        self._clocks.save(self._received)
        marks = [
            Mark(
                name,
                epoch,
                stream,
                lane.acknowledged,
                self._devices[name].session,
                tuple(lane.want),
                lane.order,
            )
            for (name, epoch, stream), lane in self._lanes.items()
            if lane.news
        ]
        changes = self._changes | {(mark.device, mark.stream.value) for mark in marks}
        return Outcome(marks, self._came_up, changes, self._log.count)

    def _device(self, name: str, received: int) -> Device:
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = self._open_device(name, received)
        return device

    def _open_device(self, name: str, received: int) -> Device:
        statement = select(devices.c.id, devices.c.events, devices.c.session).where(
            devices.c.name == name
        )
        row = self._connection.execute(statement.with_for_update()).one_or_none()
        if row is None:
            _log.info("new device", device=name)
            self._connection.execute(
                insert(devices).values(
                    name=name,
                    created=received,
                    last_seen=received,
                    online=False,
                    since=received,
                    events=0,
                    command_counter=0,
                )
            )
            row = self._connection.execute(statement).one()
        return Device(row.id, name, row.events, row.session)

    def _lane(self, device: Device, epoch: int, stream: Stream) -> Lane:
        key = (device.name, epoch, stream)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._connection, self._log, device, epoch, stream)
        return lane

    def _segment(self, device: Device, segment: Segment, received: int, *, sure: bool) -> None:
        """The hot path: columns, and a second look only at what must be acted upon."""
        lane = self._lane(device, segment.epoch, segment.stream)
        taken = lane.take(segment, received, sure=sure)
        if taken.conflict:
            reason = f"{lane.stream} events of epoch {lane.epoch} came with other content before"
            order_epoch(self._connection, device, lane, reason, received)
        for run in taken.runs:
            if COMMAND_RESULT in run.types:
                for event in _of_type(COMMAND_RESULT, lane, run):
                    self._result(device, event, received)
            if DELIVERY_LOSS in run.types:
                for event in _of_type(DELIVERY_LOSS, lane, run):
                    self._loss(device, event, received, sure=sure)

    def _result(self, device: Device, event: Event, received: int) -> None:
        refusal = commands.apply_result(self._connection, device.id, event.data, received)
        if refusal is not None:
            _log.info("command result left aside", device=device.name, reason=refusal)

    def _loss(self, device: Device, event: Event, received: int, *, sure: bool) -> None:
        try:
            loss = Loss.read(event.data)
        except ProtocolError as error:
            _log.warning(
                "loss report left aside", device=device.name, seq=event.seq, reason=str(error)
            )
            return
        lane = self._lane(device, loss.epoch, loss.stream)
        lane.lose(loss, received, sure=sure)

    def _presence(self, name: str, document: Presence, message: Inbound) -> None:
        device = self._device(name, message.received)
        heard = presence.apply(
            self._connection,
            device.id,
            document,
            retained=message.retained,
            received=message.received,
        )
        if heard.came_up:
            self._came_up.add(name)
        self._changes.add((name, PRESENCE))
        if not document.online or heard.overtaken:
            return
        device.session = document.session
        take_birth(
            self._connection,
            self._lane,
            device,
            document,
            anew=heard.anew,
            retained=message.retained,
            received=message.received,
        )
        if not message.retained:
            self._clocks.born(device.id, document, message.received)


def _of_type(kind: str, lane: Lane, run: Lines) -> list[Event]:
    return [
        decode_event(line.encode(), epoch=lane.epoch, stream=lane.stream, seq=seq)
        for seq, (line, its) in enumerate(zip(run.lines, run.types, strict=True), run.first)
        if its == kind
    ]
