"""One event: a CloudEvents 1.0 object on one JSON line."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from nexus_agent.protocol.compression import compress
from nexus_agent.protocol.names import ProtocolError, SegmentError, Stream, check_event_type
from nexus_agent.protocol.times import format_time, parse_time

MAX_EVENT_BYTES: Final = 256 * 1024
"""Largest encoded event that `emit` takes; larger things travel as files."""

# Events that were emitted together share their moment.
_parse_event_time = lru_cache(maxsize=64)(parse_time)


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


class Clock(NamedTuple):
    """A boot of the box, and whether its clock was synchronised then."""

    boot: str
    synced: bool


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


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive events as columns: the n-th entry of each list is event `first` + n.

    It has what every event is asked for; `decode_event` of a line gives the rest. payload is what
    they were decompressed from, where they are all that was in it.
    """

    first: int
    lines: list[str]
    types: list[str]
    times: list[int]
    monos: list[str]
    clocks: list[Clock]
    payload: bytes | None = None

    def packed(self) -> bytes:
        """The lines as a segment's payload has them."""
        return self.payload or compress("\n".join(self.lines).encode())

    def part(self, first: int, last: int) -> Lines:
        """Events first to last of these."""
        start, end = first - self.first, last - self.first + 1
        if start == 0 and end == len(self.lines):
            return self
        return Lines(
            first,
            self.lines[start:end],
            self.types[start:end],
            self.times[start:end],
            self.monos[start:end],
            self.clocks[start:end],
        )


def decode_lines(block: bytes, *, epoch: int, stream: Stream, first: int) -> Lines:
    """Read JSON lines that must be events *first* and following of *stream* in *epoch*.

    Checks all that `decode_event` does, in one go where every line looks as `encode_events` writes
    it; a line that only means the same is read by `decode_event`.
    """
    return _decode_usual(block, epoch, stream, first) or _decode_any(block, epoch, stream, first)


def _decode_any(block: bytes, epoch: int, stream: Stream, first: int) -> Lines:
    events = [
        decode_event(line, epoch=epoch, stream=stream, seq=first + n)
        for n, line in enumerate(block.split(b"\n"))
    ]
    return Lines(
        first,
        [event.raw.decode() for event in events],
        [event.type for event in events],
        [event.time for event in events],
        [event.mono for event in events],
        [Clock(event.boot, event.synced) for event in events],
    )


def _decode_usual(block: bytes, epoch: int, stream: Stream, first: int) -> Lines | None:
    """The lines, or None where one is not as usual; whether that is an error is not said."""
    try:
        text = block.decode()
        found = _usual_line(epoch, stream).findall(text)
        lines = text.split("\n")
        if len(found) != len(lines):
            return None
        ids, types, seconds, micros, monos, clocks, data = zip(*found, strict=True)
        if ids != tuple(map(str, range(first, first + len(lines)))):
            return None
        _check_values(data)
        start_of = {second: _parse_event_time(f"{second}Z") for second in set(seconds)}
    except (UnicodeDecodeError, orjson.JSONDecodeError, ProtocolError):
        return None
    clock_of = {clock: _read_clock(clock) for clock in set(clocks)}
    return Lines(
        first,
        lines,
        list(types),
        [
            start_of[second] + int(micro) * 1000
            for second, micro in zip(seconds, micros, strict=True)
        ],
        list(monos),
        [clock_of[clock] for clock in clocks],
    )


@lru_cache(maxsize=64)
def _usual_line(epoch: int, stream: Stream) -> re.Pattern[str]:
    """Finds (sequence, type, second, microseconds, mono, clock, data) of each line.

    The time is as `format_time` writes it; data is not looked into.
    """
    text = r'[^"\\\x00-\x1f]*+'
    head = f'{{"specversion":"1\\.0","id":"{epoch}/{stream}/([0-9]+)","source":"{text}"'
    time = r"([0-9-]{10}T[0-9:]{8})\.([0-9]{6})Z"
    moment = f'"time":"{time}","mono":"({text})","boot":"({text}","synced":(?:true|false))'
    return re.compile(f'^{head},"type":"({text})",{moment},"data":(.+)}}$', re.MULTILINE)


def _read_clock(text: str) -> Clock:
    boot, _, synced = text.partition('","synced":')
    return Clock(boot, synced == "true")


def _check_values(data: Sequence[str]) -> None:
    """Raise orjson.JSONDecodeError unless each of *data* is one JSON value."""
    # Parsed as one list. A number that nobody can foresee stands between them, so that brackets
    # and commas of one cannot be completed by another.
    mark = secrets.randbits(60)
    values = orjson.loads(f"[{f',{mark},'.join(data)}]")
    if len(values) != 2 * len(data) - 1 or values[1::2].count(mark) != len(data) - 1:
        raise orjson.JSONDecodeError("more or less than one value in a line", "", 0)


def event_id(epoch: int, stream: Stream, seq: int) -> str:
    """The CloudEvents id: unique for one device, and it sorts nothing; (epoch, seq) does."""
    return f"{epoch}/{stream}/{seq}"
