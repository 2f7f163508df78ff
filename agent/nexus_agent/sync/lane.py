"""How far one stream has been sent in this session, and what of it waits for the console's word."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.protocol import Segment
from nexus_agent.store.segments import epoch_of

WINDOW_BYTES: Final = 1024 * 1024
"""Bytes of one stream that may be under way without the console's acknowledgement."""
ACK_TIMEOUT_CAP_S: Final = 900.0
STALE_S: Final = 5.0
"""A console that says nothing for so long while the broker has something for it is away."""
_SEGMENTS: Final = 64


@dataclass(slots=True)
class Message:
    """One message under way: the edge of its last event, its size, since when the broker has it."""

    last: int
    size: int
    at_broker: float = float("inf")


@dataclass(slots=True)
class Lane:
    """Edges are those of `nexus_agent.store.positions`.

    cursor: the edge up to which segments were taken from the outbox; rest: parts of the last one
    that are still to be sent. patience: seconds without an acknowledgement after which the stream
    is sent again, at first; limit: segments to ask the outbox for.
    """

    cursor: int
    patience: float
    timeout: float
    moved: float = 0.0
    limit: int = 8
    under_way: deque[Message] = field(default_factory=deque)
    rest: deque[Segment] = field(default_factory=deque)
    recalled: bool = False

    @property
    def _probing(self) -> bool:
        return self.timeout > self.patience

    def has_room(self) -> bool:
        """Whether one more message may be under way."""
        if self._probing:
            return not self.under_way
        return sum(message.size for message in self.under_way) < WINDOW_BYTES

    def deadline(self) -> float:
        """When to send again; what the broker does not have yet is on its way still."""
        if not self.under_way:
            return float("inf")
        return max(self.moved, self.under_way[0].at_broker) + self.timeout

    def overdue(self, back: float, now: float) -> bool:
        """Whether a console that came back at *back* should have answered by now, had it heard."""
        return bool(self.under_way) and (self.under_way[0].at_broker <= min(back, now - STALE_S))

    def at_broker(self) -> int:
        """The edge up to which, in the epoch of the oldest message, the broker has all; or 0."""
        edge = 0
        for message in self.under_way:
            if message.at_broker == float("inf") or (
                edge and epoch_of(edge) != epoch_of(message.last)
            ):
                break
            edge = message.last
        return edge

    def rewind(self, released: int, *, patient: bool) -> None:
        """Send again from *released* on; patient: and wait twice as long for the answer."""
        self.cursor, self.recalled = released, False
        self.under_way.clear()
        self.rest.clear()
        self.timeout = min(self.timeout * 2, ACK_TIMEOUT_CAP_S) if patient else self.patience

    def advance(self, acknowledged: int, released: int, now: float) -> None:
        """The console has everything of the epoch of *acknowledged* up to there."""
        epoch = epoch_of(acknowledged)
        kept = [m for m in self.under_way if epoch_of(m.last) != epoch or m.last > acknowledged]
        if len(kept) == len(self.under_way) and released <= self.cursor:
            return
        self.under_way = deque(kept)
        self.cursor = max(self.cursor, released)
        self.moved, self.timeout = now, self.patience

    def take(self, found: list[Segment], size: int) -> list[Segment]:
        """The first of *found* up to *size* bytes, at least one; finds a better limit."""
        chosen = fitting(found, size)
        if len(chosen) == len(found) == self.limit:
            self.limit = min(self.limit * 2, _SEGMENTS)
        elif len(chosen) * 2 < len(found):
            self.limit = max(1, self.limit // 2)
        return chosen


def fitting(found: list[Segment], size: int) -> list[Segment]:
    """The first of *found* that share a message of *size* bytes; one that is larger goes alone."""
    total = 0
    for count, segment in enumerate(found):
        total += len(segment.payload)
        if total > size and count:
            return found[:count]
    return found
