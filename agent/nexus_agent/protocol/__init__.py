"""Protocol v1 between a box and its console: topics, envelopes and the sealed segment.

Pure functions and values, no I/O: the agent and the console both import this module and nothing
else of each other. Times are nanoseconds since the Unix epoch in memory and RFC 3339 on the wire.

An *event* is one CloudEvents 1.0 JSON object on one line (CloudEvents 1.0 section 3, JSON event
format section 3). A *segment* is a run of events of one stream and epoch with consecutive sequence
numbers: their lines joined by a newline and compressed with zstd (RFC 8878), the small ones with a
dictionary that comes with this package. The bytes that are stored on the box are the bytes that
travel.
"""

from __future__ import annotations

from nexus_agent.protocol.catalogue.box import CommandResult, CommandState, Loss
from nexus_agent.protocol.compression import DICTIONARY, MAX_SEGMENT_BYTES
from nexus_agent.protocol.documents import (
    MAX_WANTED,
    Ack,
    Command,
    Presence,
    Signed,
)
from nexus_agent.protocol.events import (
    MAX_EVENT_BYTES,
    Clock,
    Event,
    Lines,
    Stamp,
    decode_event,
    decode_lines,
    encode_events,
    event_id,
)
from nexus_agent.protocol.messages import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    PROPERTY_ENCODING,
    PROPERTY_EPOCH,
    PROPERTY_MAC,
    PROPERTY_SEGMENT,
    PROPERTY_SESSION,
    UserProperties,
    pack,
    session_of,
    unpack,
)
from nexus_agent.protocol.names import (
    ALL_DATA,
    ALL_PRESENCE,
    CONSOLE_ID,
    MAX_EPOCH,
    MAX_SEQUENCE,
    ROOT,
    VERSION,
    ProtocolError,
    Quality,
    SegmentError,
    Stream,
    Topic,
    check_device_id,
    check_event_type,
    parse_up,
)
from nexus_agent.protocol.segments import (
    Segment,
    checksum,
    merge,
    open_segment,
    pack_lines,
    read_segment,
    seal,
    split,
    unpack_lines,
    verify,
)
from nexus_agent.protocol.times import (
    format_time,
    parse_time,
)

__all__ = [
    "ALL_DATA",
    "ALL_PRESENCE",
    "CONSOLE_ID",
    "CONTENT_ENCODING",
    "CONTENT_TYPE",
    "DICTIONARY",
    "MAX_EPOCH",
    "MAX_EVENT_BYTES",
    "MAX_SEGMENT_BYTES",
    "MAX_SEQUENCE",
    "MAX_WANTED",
    "PROPERTY_ENCODING",
    "PROPERTY_EPOCH",
    "PROPERTY_MAC",
    "PROPERTY_SEGMENT",
    "PROPERTY_SESSION",
    "ROOT",
    "VERSION",
    "Ack",
    "Clock",
    "Command",
    "CommandResult",
    "CommandState",
    "Event",
    "Lines",
    "Loss",
    "Presence",
    "ProtocolError",
    "Quality",
    "Segment",
    "SegmentError",
    "Signed",
    "Stamp",
    "Stream",
    "Topic",
    "UserProperties",
    "check_device_id",
    "check_event_type",
    "checksum",
    "decode_event",
    "decode_lines",
    "encode_events",
    "event_id",
    "format_time",
    "merge",
    "open_segment",
    "pack",
    "pack_lines",
    "parse_time",
    "parse_up",
    "read_segment",
    "seal",
    "session_of",
    "split",
    "unpack",
    "unpack_lines",
    "verify",
]
