"""The newest frame of each message: what comes faster than it is looked at is replaced."""

from __future__ import annotations

import threading
from typing import Final

import can

from nexus_plugins.can_signals.directory import Directory
from nexus_plugins.can_signals.layout import SHORT, Case, Layout

MOST: Final = 4096
"""Places in the table; a frame of yet another message is dropped."""

_Key = tuple[Layout, int | None, Case]


class Place:
    """Where the newest frame of one message stands: of one sender on J1939, and of one case of its
    multiplexers.
    """

    __slots__ = ("address", "case", "data", "is_new", "key", "layout")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.layout, self.address, self.case = key
        self.data = b""
        self.is_new = False


class Frames:
    """`take` is for the thread that reads the channel, everything else for the loop's.

    Counted: unknown, superseded, malformed and dropped, as `can.traffic` says.
    """

    def __init__(self, directory: Directory) -> None:
        self.unknown = 0
        self.superseded = 0
        self.malformed = 0
        self.dropped = 0
        self._directory = directory
        self._lock = threading.Lock()
        self._places: dict[_Key, Place] = {}
        self._new: list[Place] = []

    def take(self, message: can.Message) -> None:
        """Keep a frame of data, in the place of the one before it."""
        found = self._directory.find(message.arbitration_id, extended=message.is_extended_id)
        if found is None:
            self.unknown += 1
            return
        layout, address = found
        data = bytes(message.data)
        case = layout.case_of(data)
        self.malformed += case is SHORT
        with self._lock:
            self._keep((layout, address, case), data)

    def _keep(self, key: _Key, data: bytes) -> None:
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= MOST:
                self.dropped += 1
                return
            place = self._places[key] = Place(key)
        place.data = data
        if place.is_new:
            self.superseded += 1
        else:
            place.is_new = True
            self._new.append(place)

    def news(self) -> list[tuple[Place, bytes]]:
        """Each place that has a new frame, and that frame; once each."""
        with self._lock:
            new, self._new = self._new, []
            for place in new:
                place.is_new = False
            return [(place, place.data) for place in new]

    def forget(self, place: Place) -> None:
        """Make room: no such frame has come for long."""
        with self._lock:
            if not place.is_new:
                self._places.pop(place.key, None)
