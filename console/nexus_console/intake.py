"""One transaction's worth of messages from boxes, written into the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from nexus_agent.protocol import (
    MAX_EPOCH,
    MAX_SEQUENCE,
    Event,
    Presence,
    ProtocolError,
    Segment,
    Stream,
    UserProperties,
    parse_up,
    unpack,
)
from nexus_console import commands, presence
from nexus_console.db.engine import storable
from nexus_console.db.models import STREAM_CODES, devices, events, unreadable
from nexus_console.lanes import Lane
from nexus_console.live import PRESENCE, Change

COMMAND_RESULT: Final = "command.result"
DELIVERY_LOSS: Final = "delivery.loss"
RELEASED_BEFORE: Final = "released by the box before this console had it"
MAX_UNREADABLE: Final = 200
MAX_UNREADABLE_BYTES: Final = 256 * 1024

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_COLUMNS: Final = tuple(column.name for column in events.columns)
_INSERT_SQLITE: Final = (
    f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our own column names
)
_COPY_POSTGRESQL: Final = f"COPY events ({', '.join(_COLUMNS)}) FROM STDIN"


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
    """How far one stream of one epoch of a device is committed."""

    device: str
    epoch: int
    stream: Stream
    seq: int


@dataclass(slots=True)
class Outcome:
    """What is to be told after the commit."""

    marks: list[Mark] = field(default_factory=list)
    came_up: set[str] = field(default_factory=set)
    changes: set[Change] = field(default_factory=set)
    events: int = 0


class LossReport(BaseModel):
    """`data` of a `delivery.loss` event: sequences that will not come, both ends included."""

    model_config = ConfigDict(extra="ignore")

    stream: Stream
    epoch: int = Field(ge=1, le=MAX_EPOCH)
    first: int = Field(ge=1, le=MAX_SEQUENCE)
    last: int = Field(ge=1, le=MAX_SEQUENCE)
    cause: str = "not stated"

    @model_validator(mode="after")
    def _check_order(self) -> LossReport:
        if self.first > self.last:
            raise ValueError("first is after last")
        return self


@dataclass(slots=True)
class _Device:
    id: int
    name: str
    events: int
    heard: int | None = None


class Intake:
    """Takes messages within the transaction of *connection*; `finish` writes what is left."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._devices: dict[str, _Device] = {}
        self._lanes: dict[tuple[str, int, Stream], Lane] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._came_up: set[str] = set()
        self._changes: set[Change] = set()

    def take(self, message: Inbound) -> None:
        """Take one message in. One that is not protocol v1 is kept as it is for people to see."""
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
        for segment in parts:
            self._segment(device, segment, message.received)
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
        if self._rows:
            _insert_events(self._connection, self._rows)
        for lane in self._lanes.values():
            lane.save()
        for device in self._devices.values():
            values: dict[str, Any] = {"events": device.events}
            if device.heard is not None:
                values["last_seen"] = device.heard
            self._connection.execute(
                update(devices).where(devices.c.id == device.id).values(values)
            )
        marks = [
            Mark(name, epoch, stream, lane.high_water)
            for (name, epoch, stream), lane in self._lanes.items()
        ]
        changes = self._changes | {(mark.device, mark.stream.value) for mark in marks}
        return Outcome(marks, self._came_up, changes, len(self._rows))

    def _device(self, name: str, received: int) -> _Device:
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = self._open_device(name, received)
        return device

    def _open_device(self, name: str, received: int) -> _Device:
        statement = select(devices.c.id, devices.c.events).where(devices.c.name == name)
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
        return _Device(row.id, name, row.events)

    def _lane(self, device: _Device, epoch: int, stream: Stream) -> Lane:
        key = (device.name, epoch, stream)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._connection, device.id, epoch, stream)
        return lane

    def _segment(self, device: _Device, segment: Segment, received: int) -> None:
        """The hot path: a list a segment, and a second look only at what must be acted upon."""
        lane = self._lane(device, segment.epoch, segment.stream)
        fresh = lane.take(segment, received)
        key, code, epoch, start = (
            device.id,
            STREAM_CODES[segment.stream],
            segment.epoch,
            device.events,
        )
        self._rows += [
            (key, code, n, epoch, e.seq, e.type, e.time, received, e.raw.decode())
            for n, e in enumerate(fresh, start + 1)
        ]
        device.events += len(fresh)
        for event in fresh:
            if event.type == COMMAND_RESULT:
                self._result(device, event, received)
            elif event.type == DELIVERY_LOSS:
                self._loss(device, event, received)

    def _result(self, device: _Device, event: Event, received: int) -> None:
        refusal = commands.apply_result(self._connection, device.id, event.data, received)
        if refusal is not None:
            _log.info("command result left aside", device=device.name, reason=refusal)

    def _loss(self, device: _Device, event: Event, received: int) -> None:
        try:
            loss = LossReport.model_validate(event.data)
        except ValidationError as error:
            _log.warning(
                "loss report left aside",
                device=device.name,
                seq=event.seq,
                reason=error.errors()[0]["msg"],
            )
            return
        lane = self._lane(device, loss.epoch, loss.stream)
        lane.lose(loss.first, loss.last, storable(loss.cause), received)

    def _presence(self, name: str, document: Presence, message: Inbound) -> None:
        device = self._device(name, message.received)
        if presence.apply(
            self._connection,
            device.id,
            document,
            retained=message.retained,
            received=message.received,
        ):
            self._came_up.add(name)
        self._changes.add((name, PRESENCE))
        if document.epoch is not None:
            # What the box has let go of and this database never had (a new or an older one) will
            # not come by itself: the mark must not wait for it.
            for stream, last in (document.released or {}).items():
                if 1 <= last <= MAX_SEQUENCE:
                    lane = self._lane(device, document.epoch, stream)
                    lane.lose(1, last, RELEASED_BEFORE, message.received)
        for epoch, lasts in (document.closed or {}).items():
            for stream, last in lasts.items():
                if 1 <= epoch <= MAX_EPOCH and 0 <= last <= MAX_SEQUENCE:
                    self._lane(device, epoch, stream).close(last)


def _insert_events(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """The hot path: straight to the driver. COPY is the fastest way into PostgreSQL."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT_SQLITE, rows)
        return
    driver: Any = connection.connection.driver_connection  # psycopg's, an optional dependency
    errors = connection.dialect.loaded_dbapi.Error
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY_POSTGRESQL) as copy:
            for row in rows:
                copy.write_row(row)
    except errors as error:
        raise DBAPIError.instance(_COPY_POSTGRESQL, None, error, errors) from None
