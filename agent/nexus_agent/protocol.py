"""Protocol v1 between a box and its console: topics, envelopes and the sealed segment.

Pure functions and values, no I/O: the agent and the console both import this module and nothing
else of each other. Times are nanoseconds since the Unix epoch in memory and RFC 3339 on the wire.

An *event* is one CloudEvents 1.0 JSON object on one line (CloudEvents 1.0 section 3, JSON event
format section 3). A *segment* is a run of events of one stream and epoch with consecutive sequence
numbers: their lines joined by a newline and compressed with zstd (RFC 8878). The bytes that are
stored on the box are the bytes that travel.
"""

from __future__ import annotations

import enum
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError

VERSION: Final = 1
ROOT: Final = "nexus/v1"
CONTENT_TYPE: Final = "application/x-ndjson"
CONTENT_ENCODING: Final = "zstd"
CONSOLE_ID: Final = "console"

MAX_SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""Largest decompressed segment that is read: a hostile or damaged one cannot exhaust memory."""

MAX_EVENT_BYTES: Final = 256 * 1024
"""Largest encoded event that `emit` takes; larger things travel as files."""

MAX_SEQUENCE: Final = 2**44 - 1
MAX_EPOCH: Final = 2**18 - 1

_DEVICE_ID = re.compile(r"[a-z0-9-]{1,63}\Z")
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\Z")
_COMMAND_NAME = _EVENT_TYPE


class ProtocolError(ValueError):
    """What arrived is not what protocol v1 says; the message names the part and the reason."""


class SegmentError(ProtocolError):
    """A segment's bytes do not hold the events that its header declares."""


class Stream(enum.StrEnum):
    """The four ways up, most urgent first."""

    ALERT = "alert"
    EVENT = "event"
    TELEMETRY = "telemetry"
    LOG = "log"


class Quality(enum.StrEnum):
    """What is known of a reading. Only `OK` comes with a value; nothing is ever invented."""

    OK = "ok"
    ABSENT = "absent"
    """Nobody answered, or the vehicle says that it has no such value."""
    REFUSED = "refused"
    """A control unit answered that it will not say (a negative response)."""
    MALFORMED = "malformed"
    """An answer came that does not decode."""


# -- names ---------------------------------------------------------------------------------------


def check_device_id(device: str) -> str:
    """Return *device* if it may name a box: 1 to 63 of a-z, 0-9 and `-`, and not `console`."""
    if not _DEVICE_ID.match(device):
        raise ProtocolError(
            f"device id {device!r}: use 1 to 63 lower-case letters, digits and hyphens"
        )
    if device == CONSOLE_ID:
        raise ProtocolError(f"device id {device!r} is reserved for consoles")
    return device


def check_event_type(event_type: str) -> str:
    """Return *event_type* if it is dotted lower-case words, such as `telemetry.pid`."""
    if not _EVENT_TYPE.match(event_type):
        raise ProtocolError(
            f"event type {event_type!r}: use dotted lower-case words, such as 'telemetry.pid'"
        )
    return event_type


class Topic:
    """The topics of one device. Everything under `up/` is written by the box alone."""

    def __init__(self, device: str) -> None:
        self.device = check_device_id(device)
        self.presence = f"{ROOT}/{device}/up/presence"
        self.ack = f"{ROOT}/{device}/down/ack"
        self.command = f"{ROOT}/{device}/down/command"
        self.desired = f"{ROOT}/{device}/down/desired"

    def data(self, stream: Stream) -> str:
        """Where segments of *stream* are published."""
        return f"{ROOT}/{self.device}/up/data/{stream}"


ALL_PRESENCE: Final = f"{ROOT}/+/up/presence"
ALL_DATA: Final = f"{ROOT}/+/up/data/+"


def parse_up(topic: str) -> tuple[str, Literal["presence"] | Stream]:
    """Split a topic under `up/` into its device and what it carries.

    Raises ProtocolError for any other topic.
    """
    prefix = ROOT + "/"
    parts = topic.removeprefix(prefix).split("/") if topic.startswith(prefix) else []
    if len(parts) == 3 and parts[1:] == ["up", "presence"]:
        return check_device_id(parts[0]), "presence"
    if len(parts) == 4 and parts[1:3] == ["up", "data"]:
        try:
            return check_device_id(parts[0]), Stream(parts[3])
        except ValueError as error:
            raise ProtocolError(f"topic {topic!r}: {error}") from None
    raise ProtocolError(f"topic {topic!r} is not one of protocol v{VERSION}")


# -- time ----------------------------------------------------------------------------------------


_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with microseconds, as CloudEvents' `time` wants it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since the Unix epoch of an RFC 3339 time; exact to the microsecond."""
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise ProtocolError(f"time {text!r} is not RFC 3339") from None
    if moment.tzinfo is None:
        raise ProtocolError(f"time {text!r} has no time zone")
    delta = moment - _UNIX_EPOCH
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


# Events that were emitted together share their moment.
_parse_event_time = lru_cache(maxsize=64)(parse_time)


# -- events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """When something happened, by both clocks of one boot of one machine.

    wall: ns since the Unix epoch; mono: ns of CLOCK_BOOTTIME; boot: the kernel's boot id;
    synced: whether the wall clock was synchronised then.
    """

    wall: int
    mono: int
    boot: str
    synced: bool


def encode_events(
    *, device: str, source: str, stamp: Stamp, events: Sequence[tuple[str, Any]]
) -> list[bytes]:
    """Everything of (type, data) pairs of one moment but their ids: the tails of JSON lines.

    An id holds the sequence number, which is given only when the segment is sealed. Data is any
    JSON value; one that JSON cannot carry raises ProtocolError, NaN and infinity included.
    """
    seconds, rest = divmod(stamp.mono, 1_000_000_000)
    head = f'","source":"/{device}/{source}","type":"'.encode()
    middle = (
        f'","time":"{format_time(stamp.wall)}","mono":"{seconds}.{rest // 1000:06d}"'
        f',"boot":"{stamp.boot}","synced":{"true" if stamp.synced else "false"},"data":'
    ).encode()
    return [
        b"%b%b%b%b}" % (head, _type_bytes(event_type), middle, _encode_data(event_type, data))
        for event_type, data in events
    ]


@lru_cache(maxsize=1024)
def _type_bytes(event_type: str) -> bytes:
    return check_event_type(event_type).encode()


def _encode_data(event_type: str, data: Any) -> bytes:
    try:
        body = orjson.dumps(data)
    except TypeError as error:
        raise ProtocolError(f"event {event_type}: data is not JSON: {error}") from None
    # orjson writes NaN and infinity as null, which would be a value that nobody measured.
    if b"null" in body and not _finite(data):
        raise ProtocolError(f"event {event_type}: data holds NaN or infinity, which JSON has not")
    if len(body) > MAX_EVENT_BYTES:
        raise ProtocolError(
            f"event {event_type}: {len(body)} bytes of data, at most {MAX_EVENT_BYTES} are taken"
        )
    return body


def _finite(data: Any) -> bool:
    if isinstance(data, float):
        return math.isfinite(data)
    if isinstance(data, dict):
        return all(map(_finite, data.values()))
    if isinstance(data, list | tuple):
        return all(map(_finite, data))
    return True


class Event(NamedTuple):
    """One event as the console reads it. `raw` is its JSON line, exactly as the box stored it."""

    epoch: int
    stream: Stream
    seq: int
    source: str
    type: str
    time: int
    mono: str
    boot: str
    synced: bool
    data: Any
    raw: bytes


def decode_event(line: bytes, *, epoch: int, stream: Stream, seq: int) -> Event:
    """Read one JSON line that must be event *seq* of *stream* in *epoch*."""
    try:
        document = orjson.loads(line)
        source, kind, data = document["source"], document["type"], document["data"]
        mono, boot, synced = document["mono"], document["boot"], document["synced"]
        version, identity, time = document["specversion"], document["id"], document["time"]
    except orjson.JSONDecodeError as error:
        raise SegmentError(f"event {seq}: not JSON: {error}") from None
    except KeyError as error:
        raise SegmentError(f"event {seq}: {error} is missing") from None
    except TypeError:
        raise SegmentError(f"event {seq}: not an object") from None
    if version != "1.0" or identity != event_id(epoch, stream, seq):
        raise SegmentError(f"event {seq}: it says CloudEvents {version!r}, id {identity!r}")
    texts = type(source) is type(kind) is type(mono) is type(boot) is type(time) is str
    if not texts or type(synced) is not bool:
        raise SegmentError(f"event {seq}: an attribute is not of its type")
    return Event(
        epoch, stream, seq, source, kind, _parse_event_time(time), mono, boot, synced, data, line
    )


def event_id(epoch: int, stream: Stream, seq: int) -> str:
    """The CloudEvents id: unique for one device, and it sorts nothing; (epoch, seq) does."""
    return f"{epoch}/{stream}/{seq}"


# -- segments ------------------------------------------------------------------------------------

_MAGIC = b"nexus.segment.v1"
_COMPRESSOR = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment: its header and its payload, zstd frames of JSON lines.

    first and last are sequence numbers, both included; first_time and last_time are the wall times
    of those two events in ns; crc is CRC-32 (ISO 3309) over header and payload, see `checksum`.
    """

    stream: Stream
    epoch: int
    first: int
    last: int
    count: int
    first_time: int
    last_time: int
    crc: int
    payload: bytes


def checksum(
    *, stream: Stream, epoch: int, first: int, last: int, count: int, payload: bytes
) -> int:
    """CRC-32 over the header's text and the payload, so that a swapped header is found too."""
    header = b"%b %b %d %d %d %d\n" % (_MAGIC, stream.encode(), epoch, first, last, count)
    return zlib.crc32(payload, zlib.crc32(header))


def seal(
    *, stream: Stream, epoch: int, first: int, tails: Sequence[bytes], times: tuple[int, int]
) -> Segment:
    """Give consecutive sequence numbers from *first* on to encoded events and seal them.

    *tails* are what `encode_events` returned, at least one; *times* are the wall times of the first
    and the last event.
    """
    last = first + len(tails) - 1
    if not tails or first < 1 or last > MAX_SEQUENCE or not 1 <= epoch <= MAX_EPOCH:
        raise ProtocolError(f"cannot seal {len(tails)} events from {first} on in epoch {epoch}")
    start = f'{{"specversion":"1.0","id":"{epoch}/{stream}/'.encode()
    lines = b"\n".join([b"%b%d%b" % (start, first + i, tail) for i, tail in enumerate(tails)])
    payload = zstandard.ZstdCompressor(level=_COMPRESSOR).compress(lines)
    count = len(tails)
    crc = checksum(stream=stream, epoch=epoch, first=first, last=last, count=count, payload=payload)
    return Segment(stream, epoch, first, last, count, times[0], times[1], crc, payload)


def verify(segment: Segment) -> None:
    """Raise SegmentError unless the CRC fits header and payload."""
    found = checksum(
        stream=segment.stream,
        epoch=segment.epoch,
        first=segment.first,
        last=segment.last,
        count=segment.count,
        payload=segment.payload,
    )
    if found != segment.crc:
        raise SegmentError(
            f"segment {segment.stream} {segment.epoch}/{segment.first}-{segment.last}: "
            f"CRC is {found:08x}, declared {segment.crc:08x}"
        )


def open_segment(segment: Segment) -> list[Event]:
    """Every event of a segment, or SegmentError: nothing is returned of a damaged one.

    Checks the CRC, bounds the decompressed size, reads across concatenated zstd frames (which
    python-zstandard's one-shot functions silently do not) and compares count and ids with the
    header.
    """
    verify(segment)
    lines = _decompress(segment.payload).split(b"\n")
    declared = segment.last - segment.first + 1
    if len(lines) != segment.count or declared != segment.count:
        raise SegmentError(
            f"segment {segment.stream} {segment.epoch}/{segment.first}-{segment.last}: "
            f"{len(lines)} events, declared {segment.count}"
        )
    return [
        decode_event(line, epoch=segment.epoch, stream=segment.stream, seq=segment.first + i)
        for i, line in enumerate(lines)
    ]


def _decompress(payload: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=2**23).stream_reader(
        payload, read_across_frames=True
    )
    try:
        lines = reader.read(MAX_SEGMENT_BYTES + 1)
        while len(lines) <= MAX_SEGMENT_BYTES:
            more = reader.read(MAX_SEGMENT_BYTES + 1 - len(lines))
            if not more:
                break
            lines += more
    except zstandard.ZstdError as error:
        raise SegmentError(f"payload is not zstd: {error}") from None
    if len(lines) > MAX_SEGMENT_BYTES:
        raise SegmentError(f"payload is larger than {MAX_SEGMENT_BYTES} bytes when decompressed")
    return lines


# One MQTT message carries one or more segments of one stream and epoch, oldest first: the payload
# is their payloads joined, and each has one user property that says its size and what it holds.

PROPERTY_EPOCH: Final = "epoch"
PROPERTY_SEGMENT: Final = "segment"
PROPERTY_MAC: Final = "mac"
"""HMAC over the message under the device's key; written and checked from enrolment on."""

_SEGMENT_PROPERTY = re.compile(
    r"(\d{1,14})-(\d{1,14}) (\d{1,8}) (\d{1,8}) ([0-9a-f]{8}) (\S+) (\S+)\Z"
)

UserProperties = list[tuple[str, str]]


def pack(segments: Sequence[Segment]) -> tuple[UserProperties, bytes]:
    """User properties and payload of one `up/data` message for segments of one stream and epoch."""
    properties: UserProperties = [(PROPERTY_EPOCH, str(segments[0].epoch))]
    for s in segments:
        if (s.stream, s.epoch) != (segments[0].stream, segments[0].epoch):
            raise ProtocolError("segments of one message must share stream and epoch")
        times = f"{format_time(s.first_time)} {format_time(s.last_time)}"
        properties.append(
            (
                PROPERTY_SEGMENT,
                f"{s.first}-{s.last} {s.count} {len(s.payload)} {s.crc:08x} {times}",
            )
        )
    return properties, b"".join(s.payload for s in segments)


def unpack(stream: Stream, properties: UserProperties, payload: bytes) -> list[Segment]:
    """The segments of one `up/data` message. Their payloads are not looked into yet.

    Raises ProtocolError where properties and payload do not fit together.
    """
    epochs = [value for key, value in properties if key == PROPERTY_EPOCH]
    if len(epochs) != 1 or not re.fullmatch(r"\d{1,6}", epochs[0]):
        raise ProtocolError(f"one {PROPERTY_EPOCH!r} property is needed, found {epochs!r}")
    epoch = int(epochs[0])
    if not 1 <= epoch <= MAX_EPOCH:
        raise ProtocolError(f"epoch {epoch} is not within 1 to {MAX_EPOCH}")
    segments: list[Segment] = []
    offset = 0
    for key, value in properties:
        if key != PROPERTY_SEGMENT:
            continue
        match = _SEGMENT_PROPERTY.match(value)
        if match is None:
            raise ProtocolError(f"segment property {value!r} does not parse")
        first, last, count, size = (int(match[i]) for i in range(1, 5))
        if not 1 <= first <= last <= MAX_SEQUENCE or offset + size > len(payload):
            raise ProtocolError(f"segment property {value!r} does not fit the message")
        segments.append(
            Segment(
                stream=stream,
                epoch=epoch,
                first=first,
                last=last,
                count=count,
                first_time=parse_time(match[6]),
                last_time=parse_time(match[7]),
                crc=int(match[5], 16),
                payload=payload[offset : offset + size],
            )
        )
        offset += size
    if not segments or offset != len(payload):
        raise ProtocolError(
            f"{len(payload)} bytes of payload, {offset} declared by {len(segments)} segments"
        )
    return segments


# -- documents -----------------------------------------------------------------------------------

Epoch = Annotated[int, Field(ge=1, le=MAX_EPOCH)]
Sequence0 = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class _Document(BaseModel):
    """A JSON document of the protocol. Unknown keys are left aside: a newer peer may send them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Any:
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise ProtocolError(f"{cls.__name__}: {where}: {first['msg']}") from None


class Presence(_Document):
    """`up/presence`, retained: the birth document, the clean farewell or the broker's will.

    The will holds `online` and `session` only. `interval` is the longest silence in seconds that
    an online box allows itself. `next` has the next sequence of each stream in `epoch`; `closed`
    the last sequence of each stream in every epoch that ended.
    """

    v: Literal[1] = 1
    online: bool
    session: str = Field(min_length=1, max_length=64)
    reason: str | None = None
    time: str | None = None
    agent: str | None = None
    boot: str | None = None
    hostname: str | None = None
    interval: int | None = None
    epoch: Epoch | None = None
    next: dict[Stream, int] | None = None
    released: dict[Stream, int] | None = None
    closed: dict[int, dict[Stream, int]] | None = None
    plugins: dict[str, str] | None = None


class Ack(_Document):
    """`down/ack`: everything up to and including `seq` is committed in the console.

    `mac` is the HMAC under the device's key, from enrolment on.
    """

    v: Literal[1] = 1
    epoch: Epoch
    stream: Stream
    seq: Sequence0
    mac: str | None = None


class Command(_Document):
    """What the console wants done; travels inside `Signed`. Times are RFC 3339.

    `counter` rises with every command to one device in one `epoch` of the console's counters.
    """

    v: Literal[1] = 1
    id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")
    device: str
    epoch: int = Field(default=1, ge=1)
    counter: int = Field(ge=1)
    not_before: str
    expires: str
    name: str = Field(pattern=_COMMAND_NAME.pattern.replace(r"\Z", "$"))
    args: dict[str, Any] = Field(default_factory=dict)


class Signed(_Document):
    """An envelope for what must not be forged: `document` is JSON text, signed byte for byte.

    `key` and `sig` (Ed25519, base64) are empty until identities exist.
    """

    v: Literal[1] = 1
    document: str
    key: str = ""
    sig: str = ""


class CommandState(enum.StrEnum):
    """A command's life as its results tell it; the last four are terminal."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self not in (CommandState.ACCEPTED, CommandState.RUNNING)


class CommandResult(BaseModel):
    """`data` of a `command.result` event on the `event` stream."""

    model_config = ConfigDict(extra="ignore")

    id: str
    name: str
    state: CommandState
    progress: str | None = None
    result: Any = None
    error: str | None = None
