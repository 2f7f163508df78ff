"""Sealed segments in an MQTT message.

One message carries one or more segments of one stream and epoch, oldest first: the payload is their
payloads joined, and each has one user property that says its size and what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nexus_agent.protocol.names import MAX_EPOCH, MAX_SEQUENCE, ProtocolError, Stream
from nexus_agent.protocol.segments import Segment
from nexus_agent.protocol.times import format_time, parse_time

CONTENT_TYPE: Final = "application/x-ndjson"
CONTENT_ENCODING: Final = "zstd"

PROPERTY_ENCODING: Final = "encoding"
"""Always CONTENT_ENCODING: MQTT 5 has a content type but no content encoding of its own."""
PROPERTY_EPOCH: Final = "epoch"
PROPERTY_SEGMENT: Final = "segment"
PROPERTY_SESSION: Final = "session"
"""The session of the box's birth: the console tells one disk from another under the same name."""
PROPERTY_MAC: Final = "mac"
"""HMAC over the message under the device's key; written and checked from enrolment on."""

_SEGMENT_PROPERTY = re.compile(
    r"(\d{1,14})-(\d{1,14}) (\d{1,8}) (\d{1,8}) ([0-9a-f]{8}) (\S+) (\S+)\Z"
)

UserProperties = list[tuple[str, str]]


def pack(segments: Sequence[Segment], session: str = "") -> tuple[UserProperties, bytes]:
    """User properties and payload of one `up/data` message for segments of one stream and epoch.

    session: that of the box's birth, if it has introduced itself.
    """
    properties: UserProperties = [
        (PROPERTY_ENCODING, CONTENT_ENCODING),
        (PROPERTY_EPOCH, str(segments[0].epoch)),
    ]
    if session:
        properties.append((PROPERTY_SESSION, session))
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


def session_of(properties: UserProperties) -> str | None:
    """The session in which an `up/data` message was sent; None where it does not say."""
    return next((value for key, value in properties if key == PROPERTY_SESSION), None)


def unpack(stream: Stream, properties: UserProperties, payload: bytes) -> list[Segment]:
    """The segments of one `up/data` message. Their payloads are not looked into yet.

    Raises ProtocolError where properties and payload do not fit together.
    """
    encodings = [value for key, value in properties if key == PROPERTY_ENCODING]
    if encodings != [CONTENT_ENCODING]:
        raise ProtocolError(f"encoding {CONTENT_ENCODING!r} is needed, found {encodings!r}")
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
