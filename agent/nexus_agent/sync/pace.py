"""How many bytes may be on their way to the broker: what is handed to TCP, no alert can overtake.

Every PUBACK says how fast the line is. About `QUEUE_S` worth of bytes is kept under way, so that an
alert waits no longer than that behind them, and a fast line stays full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

QUEUE_S: Final = 0.4
FLOOR_BYTES: Final = 16 * 1024
CAP_BYTES: Final = 1024 * 1024
MESSAGE_BYTES: Final = 128 * 1024
"""Segments are joined up to this size, or half of the window where that is less."""
MESSAGES: Final = 16
URGENT_MESSAGES: Final = 20
"""Messages under way at most. Beyond 20, mosquitto's default and paho's, they would queue here."""
_SHORTEST_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message under way. full: it was limited by the window, not by what there was to send."""

    size: int
    at: float
    delivered: int
    full: bool


class Pace:
    """Of one session. Times are those of the event loop, in seconds; sizes are bytes."""

    def __init__(self) -> None:
        self.window = FLOOR_BYTES
        self.rate = 0.0
        """Bytes a second that the line carries; 0 until it is known."""
        self._base = float("inf")
        self._under_way = 0
        self._messages = 0
        self._delivered = 0

    @property
    def share(self) -> int:
        """The largest message that leaves room for the one behind it."""
        return self.window // 2

    @property
    def message_bytes(self) -> int:
        """Up to which segments are joined."""
        return min(self.share, MESSAGE_BYTES)

    def has_room(self, *, urgent: bool) -> bool:
        """Whether a message may go now; an urgent one waits for no bytes."""
        if urgent:
            return self._messages < URGENT_MESSAGES
        fits = self._under_way <= self.window - self.message_bytes
        return fits and self._messages < MESSAGES

    def send(self, size: int, now: float) -> Parcel:
        """A message of *size* is handed over."""
        self._under_way += size
        self._messages += 1
        return Parcel(size, now, self._delivered, self._under_way >= self.share)

    def end(self, parcel: Parcel) -> None:
        """It is no longer under way, whatever became of it."""
        self._under_way -= parcel.size
        self._messages -= 1

    def arrive(self, parcel: Parcel, now: float) -> None:
        """The broker has it: learn from how long that took."""
        self._delivered += parcel.size
        latency = max(now - parcel.at, _SHORTEST_S)
        self._base = min(self._base, latency)
        sample = (self._delivered - parcel.delivered) / latency
        if not parcel.full and sample < self.rate:
            return  # there was no more to send: that says nothing against the line
        self.rate = (self.rate + sample) / 2 if self.rate else sample
        wanted = self.rate * (QUEUE_S + self._base)
        # At most doubled by each window that has arrived: one lucky burst proves no fast line.
        wanted = min(wanted, self.window + (parcel.size if parcel.full else 0))
        self.window = int(min(max(wanted, FLOOR_BYTES), CAP_BYTES))
