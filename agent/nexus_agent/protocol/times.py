"""Times on the wire and in memory."""

from __future__ import annotations

from datetime import UTC, datetime

from nexus_agent.protocol.names import ProtocolError

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
