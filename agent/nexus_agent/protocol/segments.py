"""The sealed segment: a run of consecutive events of one stream, compressed and checksummed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nexus_agent.protocol.compression import compress, decompress
from nexus_agent.protocol.events import Event, Lines, decode_event, decode_lines
from nexus_agent.protocol.names import MAX_EPOCH, MAX_SEQUENCE, ProtocolError, SegmentError, Stream

_MAGIC = b"nexus.segment.v1"


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
    payload = compress(lines)
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

    Checks the CRC, bounds the decompressed size, reads across concatenated zstd frames and compares
    count and ids with the header.
    """
    epoch, stream, first = segment.epoch, segment.stream, segment.first
    return [
        decode_event(line, epoch=epoch, stream=stream, seq=first + n)
        for n, line in enumerate(_checked(segment).split(b"\n"))
    ]


def read_segment(segment: Segment) -> Lines:
    """As `open_segment`, with all its checks, for who takes in many: no event's data is kept."""
    lines = decode_lines(
        _checked(segment), epoch=segment.epoch, stream=segment.stream, first=segment.first
    )
    return replace(lines, payload=segment.payload)


def _checked(segment: Segment) -> bytes:
    """The decompressed lines, of which there are as many as declared."""
    verify(segment)
    block = decompress(segment.payload)
    count = block.count(b"\n") + 1
    declared = segment.last - segment.first + 1
    if count != segment.count or declared != segment.count:
        raise SegmentError(
            f"segment {segment.stream} {segment.epoch}/{segment.first}-{segment.last}: "
            f"{count} events, declared {segment.count}"
        )
    return block


def merge(parts: Sequence[Segment]) -> Segment:
    """One segment with the events of *parts*, which follow each other in one stream and epoch.

    Raises SegmentError where one is damaged or they do not follow each other.
    """
    for part in parts:
        verify(part)
    for part, following in pairwise(parts):
        if (part.stream, part.epoch, part.last + 1) != (
            following.stream,
            following.epoch,
            following.first,
        ):
            raise SegmentError(f"{following.stream} {following.first} does not follow {part.last}")
    head, tail = parts[0], parts[-1]
    lines = b"\n".join([decompress(part.payload) for part in parts])
    payload = compress(lines)
    count = sum(part.count for part in parts)
    crc = checksum(
        stream=head.stream,
        epoch=head.epoch,
        first=head.first,
        last=tail.last,
        count=count,
        payload=payload,
    )
    return Segment(
        head.stream,
        head.epoch,
        head.first,
        tail.last,
        count,
        head.first_time,
        tail.last_time,
        crc,
        payload,
    )


def split(segment: Segment, size: int) -> list[Segment]:
    """*segment* as several, of about *size* bytes each where its events allow that.

    They hold the same events under the same numbers. One that cannot be read is returned whole.
    """
    try:
        events = open_segment(segment)
    except SegmentError:
        return [segment]
    lines = decompress(segment.payload).split(b"\n")
    per_part = max(1, len(lines) * size // max(len(segment.payload), 1))
    return [
        _part(segment, lines[start : start + per_part], events[start : start + per_part])
        for start in range(0, len(lines), per_part)
    ]


def _part(whole: Segment, lines: list[bytes], events: list[Event]) -> Segment:
    payload = compress(b"\n".join(lines))
    stream, epoch, count = whole.stream, whole.epoch, len(lines)
    first, last = events[0].seq, events[-1].seq
    crc = checksum(stream=stream, epoch=epoch, first=first, last=last, count=count, payload=payload)
    times = events[0].time, events[-1].time
    return Segment(stream, epoch, first, last, count, *times, crc, payload)


def pack_lines(lines: Iterable[str]) -> bytes:
    """JSON lines as a payload has them."""
    return compress("\n".join(lines).encode())


def unpack_lines(payload: bytes) -> list[str]:
    """The JSON lines of a payload that has been read before. Raises SegmentError."""
    return decompress(payload).decode().split("\n")
