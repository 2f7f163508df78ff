"""The tables. Times are nanoseconds since the Unix epoch; JSON is kept as text.

The same schema runs on SQLite and PostgreSQL. Tables that are filled by the million are clustered
by their key (`WITHOUT ROWID` on SQLite), and hold integers where a name would be repeated.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from nexus_agent.protocol import Stream

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

STREAM_CODES: Final = {Stream.ALERT: 0, Stream.EVENT: 1, Stream.TELEMETRY: 2, Stream.LOG: 3}
CLOCKS: Final = ("synced", "unsynced", "retimed", "unknown")
"""What an event's time is worth, by its code: by a synchronised clock of the box; by one that was
not, and was right as far as is known; set right here; or nobody knows how far it is off."""
STREAMS: Final = {code: stream for stream, code in STREAM_CODES.items()}

devices = Table(
    "devices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("created", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("online", Boolean, nullable=False),
    Column("session", String(64)),
    # JSON, the last few sessions before it: a broker that comes back with an old state of its own
    # brings their births again.
    Column("past_sessions", Text),
    Column("reason", Text),
    Column("since", BigInteger, nullable=False),
    # The last birth document as it came, when it came, and the interval it states in seconds.
    Column("birth", Text),
    Column("born", BigInteger),
    Column("interval", Integer),
    # Events stored so far, which is the position of the newest one.
    Column("events", BigInteger, nullable=False),
    Column("command_counter", BigInteger, nullable=False),
)

# One row for each (device, epoch, stream): how far it has come.
streams = Table(
    "streams",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("high_water", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False),
    Column("undecodable", BigInteger, nullable=False),
    # The last sequence of an epoch that the box has ended; NULL while it is open.
    Column("closed", BigInteger),
    # The last sequence that today's box is known to have sealed: what its last new session's birth
    # said, or what came since. Below the high-water mark the disk was cloned or restored, and the
    # box must not be told of more than this.
    Column("sealed", BigInteger, nullable=False, server_default="0"),
    # What is here and may be another disk's: JSON, [[first, last], …]. NULL where nothing is.
    Column("doubts", Text),
    UniqueConstraint("device_id", "epoch", "stream"),
)

# What came out of order, above the high-water mark.
ranges = Table(
    "ranges",
    metadata,
    Column("stream_id", ForeignKey("streams.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What the box has declared lost and what has not come late all the same.
losses = Table(
    "losses",
    metadata,
    Column("stream_id", ForeignKey("streams.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("received", BigInteger, nullable=False),
    # When the first and the last of them were recorded, where the box still knew.
    Column("first_time", BigInteger),
    Column("last_time", BigInteger),
    sqlite_with_rowid=False,
)

# The CRC of each segment taken in and where its events are: other content under the same numbers
# is found by it.
segments = Table(
    "segments",
    metadata,
    Column("stream_id", ForeignKey("streams.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, primary_key=True, autoincrement=False),
    Column("crc", BigInteger, nullable=False),
    # Its events that were new are at `position` and behind it, without a gap; NULL if none was.
    Column("position", BigInteger),
    # The newest time of its events, for retention; 0 where nobody noted it.
    Column("last_time", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

# Segments kept as they came: `undecodable`, or in `conflict` with one that came before.
set_aside = Table(
    "set_aside",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stream_id", ForeignKey("streams.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("crc", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("received", BigInteger, nullable=False),
    UniqueConstraint("stream_id", "kind", "first", "last", "crc"),
)

# Messages that are not protocol v1. The newest few are kept for the person who looks into it.
unreadable = Table(
    "unreadable",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("properties", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
)

# `position` numbers a device's events in the order of their arrival, without a gap: a reader who
# goes on from a position misses nothing that comes late. That (device, epoch, stream, seq) is
# there once is held by the marks in `streams` and `ranges`, written in the same transaction.
events = Table(
    "events",
    metadata,
    # No foreign key: its look-up would be paid for every event.
    Column("device_id", Integer, primary_key=True, autoincrement=False),
    Column("stream", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    # What `time` is worth: one of CLOCKS.
    Column("clock", SmallInteger, nullable=False, server_default="1"),
    # The event's JSON line exactly as the box stored it; empty where a block has it.
    Column("line", Text, nullable=False),
    # The first position of the block that has the line.
    Column("block", BigInteger),
    sqlite_with_rowid=False,
)

# The JSON lines of events at consecutive positions, in the very bytes that they came in where all
# of a segment was new: a seventh of what they take in a row each.
blocks = Table(
    "blocks",
    metadata,
    Column("device_id", Integer, primary_key=True, autoincrement=False),
    Column("stream", SmallInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# Where the events of a type are: a row for a run of them in one segment, or in several small ones.
# Positions between `first` and `last` may hold other types too. It costs a row a segment where an
# index would cost one an event.
type_spans = Table(
    "type_spans",
    metadata,
    Column("device_id", Integer, primary_key=True, autoincrement=False),
    Column("type", Text, primary_key=True),
    Column("stream", SmallInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    # The oldest and the newest of their times.
    Column("first_time", BigInteger, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# How far the clock of one boot of a box is known: true wall time = monotonic time + offset, in ns.
boots = Table(
    "boots",
    metadata,
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    Column("boot", String(64), primary_key=True),
    Column("offset", BigInteger, nullable=False),
    # `synced`: the box's clock was synchronised; `received`: by when its birth arrived here.
    Column("basis", String(16), nullable=False),
    Column("seen", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Events of an unsynchronised clock whose boot's offset is not known yet: to be re-timed once it is.
untimed = Table(
    "untimed",
    metadata,
    Column("device_id", Integer, primary_key=True, autoincrement=False),
    Column("boot", String(64), primary_key=True),
    Column("stream", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    # Monotonic time, ns.
    Column("mono", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What the console found out about a box's delivery and people should know: a new epoch was ordered,
# the clock was wrong, a range was asked for again. `count` of the same kind and text in a row.
remarks = Table(
    "remarks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
)

# One curve: readings of one name. An empty text stands for what is not stated, because NULL would
# not be unique.
series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("ecu", Text, nullable=False),
    Column("unit", Text, nullable=False),
    UniqueConstraint("device_id", "type", "name", "ecu", "unit"),
)


def _rollup(name: str) -> Table:
    """Readings of one period that begins at `start`; what is no number is counted only."""
    return Table(
        name,
        metadata,
        Column("series_id", ForeignKey("series.id"), primary_key=True),
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        # Numbers of quality ok, and what became of the others.
        Column("ok", BigInteger, nullable=False),
        Column("absent", BigInteger, nullable=False),
        Column("refused", BigInteger, nullable=False),
        Column("malformed", BigInteger, nullable=False),
        Column("minimum", Double),
        Column("maximum", Double),
        Column("total", Double),
        sqlite_with_rowid=False,
    )


series_minute = _rollup("series_minute")
series_hour = _rollup("series_hour")

# How far a device's events have been rolled up: everything at or below `position`.
rollup_marks = Table(
    "rollup_marks",
    metadata,
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

# What boxes have told of cars, as far as a car's history is made of it: see vehicles/facts.py. It
# stays when retention deletes the events, so it holds what they said.
vehicle_facts = Table(
    "vehicle_facts",
    metadata,
    Column("ref", String(64), primary_key=True),
    Column("device_id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("type", String(40), nullable=False),
    Column("time", BigInteger, nullable=False),
    # One of CLOCKS: what is `unknown` may be set right later.
    Column("clock", SmallInteger, nullable=False, index=True),
    Column("scan_id", String(64)),
    Column("vin", String(17)),
    # JSON: the event's data, without what the columns have.
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row a car, made anew from its facts whenever there are new ones.
vehicles = Table(
    "vehicles",
    metadata,
    Column("ref", String(64), primary_key=True),
    Column("vin", String(17), index=True),
    Column("maker", Text),
    Column("model_year", Integer),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False, index=True),
    Column("last_scan", BigInteger),
    # Codes that it has, and those of which nobody knows whether it still has them.
    Column("present", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
)

# Every code that a car has ever shown. Its life is JSON: see vehicles/history.py.
vehicle_codes = Table(
    "vehicle_codes",
    metadata,
    Column("ref", String(64), primary_key=True),
    Column("ecu", String(64), primary_key=True),
    Column("code", String(40), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("life", Text, nullable=False),
    sqlite_with_rowid=False,
)

# How far the events of a box are in these tables, and how many of them could not be read.
vehicle_marks = Table(
    "vehicle_marks",
    metadata,
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("unreadable", BigInteger, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("device_id", ForeignKey("devices.id"), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("progress", Text),
    Column("result", Text),
    Column("error", Text),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    # The envelope as it is published, byte for byte the same each time.
    Column("envelope", Text, nullable=False),
    UniqueConstraint("device_id", "counter"),
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
)

# A token is known by its SHA-256 only.
tokens = Table(
    "tokens",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)
