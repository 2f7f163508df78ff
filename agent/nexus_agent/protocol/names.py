"""What things are called: versions, streams, topics, and the errors of bad input."""

from __future__ import annotations

import enum
import re
from typing import Final, Literal

VERSION: Final = 1
ROOT: Final = "nexus/v1"
CONSOLE_ID: Final = "console"

MAX_SEQUENCE: Final = 2**44 - 1
MAX_EPOCH: Final = 2**18 - 1


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


_DEVICE_ID = re.compile(r"[a-z0-9-]{1,63}\Z")
EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\Z")


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
    if not EVENT_TYPE.match(event_type):
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
