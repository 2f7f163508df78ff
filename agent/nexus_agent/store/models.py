"""The agent's tables, as SQLAlchemy sees them. Migrations build them; a test compares the two.

The running agent speaks plain SQL and does not import this module: on the outbox's path the ORM
would cost more than all the rest, and SQLAlchemy itself is 21 MB of a small box's memory.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, LargeBinary, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nexus_agent.protocol import Stream
from nexus_agent.store.segments import SEGMENT_TABLES


class Base(DeclarativeBase):
    """Root of the agent's tables."""


class _SegmentTable(Base):
    """Sealed segments of one stream.

    A table a stream keeps every insert at the right edge of its B-tree and needs no second index:
    the row id is epoch << 44 | first sequence, so that row order is delivery order and an
    acknowledgement is one range.
    """

    __abstract__ = True

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    last: Mapped[int] = mapped_column(Integer)
    count: Mapped[int] = mapped_column(Integer)
    first_time: Mapped[int] = mapped_column(BigInteger)
    """Wall time of the first event, ns."""
    last_time: Mapped[int] = mapped_column(BigInteger)
    synced: Mapped[int] = mapped_column(Integer)
    """1 where the clock was synchronised for every event: only then its times prove an age."""
    crc: Mapped[int] = mapped_column(BigInteger)
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class AlertSegment(_SegmentTable):
    __tablename__ = SEGMENT_TABLES[Stream.ALERT]


class EventSegment(_SegmentTable):
    __tablename__ = SEGMENT_TABLES[Stream.EVENT]


class TelemetrySegment(_SegmentTable):
    __tablename__ = SEGMENT_TABLES[Stream.TELEMETRY]


class LogSegment(_SegmentTable):
    __tablename__ = SEGMENT_TABLES[Stream.LOG]


class EpochRow(Base):
    """One numbering of this box's events. The highest number is the open one."""

    __tablename__ = "epoch"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    opened: Mapped[int] = mapped_column(BigInteger)
    """Wall time, ns."""
    reason: Mapped[str] = mapped_column(Text)


class PositionRow(Base):
    """How far a stream of an epoch is acknowledged, and where it ended if the epoch is closed."""

    __tablename__ = "position"

    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    stream: Mapped[str] = mapped_column(Text, primary_key=True)
    acknowledged: Mapped[int] = mapped_column(Integer)
    final: Mapped[int | None] = mapped_column(Integer)


class LossRow(Base):
    """The loss ledger: what was promised and will never be sent, written before it is dropped."""

    __tablename__ = "loss"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    stream: Mapped[str] = mapped_column(Text)
    epoch: Mapped[int] = mapped_column(Integer)
    first: Mapped[int] = mapped_column(Integer)
    last: Mapped[int] = mapped_column(Integer)
    first_time: Mapped[int | None] = mapped_column(BigInteger)
    last_time: Mapped[int | None] = mapped_column(BigInteger)
    cause: Mapped[str] = mapped_column(Text)
    reported: Mapped[int | None] = mapped_column(Integer)
    """Row id (epoch << 44 | sequence) of the `delivery.loss` event that tells of it."""


class TrafficRow(Base):
    """Bytes handed to the broker, by day of the box's own time zone and stream."""

    __tablename__ = "traffic"

    day: Mapped[str] = mapped_column(Text, primary_key=True)
    """YYYY-MM-DD"""
    stream: Mapped[str] = mapped_column(Text, primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


class StateRow(Base):
    """One key of one plugin's small state; value is JSON text."""

    __tablename__ = "plugin_state"

    plugin: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class CommandRow(Base):
    """The command journal: written before anything is done, so that a repeat finds its result."""

    __tablename__ = "command"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    counter: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(Text)
    document: Mapped[str] = mapped_column(Text)
    """The protocol's Command as JSON text."""
    expires: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text, index=True)
    received: Mapped[int] = mapped_column(BigInteger)
    finished: Mapped[int | None] = mapped_column(BigInteger)
    result: Mapped[str | None] = mapped_column(Text)
    """The terminal CommandResult as JSON text."""
