"""Which readings are told, and when: changes beyond the dead band, each signal at its rate."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.can_signals.decoding import Reading, decoded
from nexus_plugins.can_signals.frames import Place
from nexus_plugins.can_signals.layout import Layout, Signal
from nexus_plugins.can_signals.settings import CanSignalsSettings, Limits

_CYCLES: Final = 5
"""So many of a message's cycles without a frame are no jitter."""


class Track:
    """One signal of one sender: what it says now, and what was told of it."""

    __slots__ = ("_common", "limits", "newest", "seen_at", "told", "told_at", "waits")

    def __init__(self, common: dict[str, Any], limits: Limits) -> None:
        self._common = common
        self.limits = limits
        self.newest = Reading(None, Quality.ABSENT)
        self.seen_at = 0.0
        self.told: Reading | None = None
        self.told_at = 0.0
        self.waits = False

    def is_worth_telling(self, now: float) -> bool:
        """Whether the newest reading says something that the last told one did not."""
        new, told = self.newest, self.told
        if told is None or new.quality is not told.quality:
            return True
        if now - self.told_at >= self.limits.hold_s:
            return True
        if isinstance(new.value, float) and isinstance(told.value, float):
            return abs(new.value - told.value) > self.limits.dead_band
        return new.value != told.value

    def tell(self, now: float) -> dict[str, Any]:
        """The newest reading, as data of `telemetry.signal`; it counts as told."""
        new = self.newest
        self.told, self.told_at = new, now
        data = {**self._common, "value": new.value, "quality": new.quality}
        if not isinstance(new.value, float) and new.quality is Quality.OK:
            data["unit"] = "1"
        if new.detail is not None:
            data["detail"] = new.detail
        return data


Told = tuple[Track, dict[str, Any]]
"""What is to be emitted, and whose it is."""


class Teller:
    """The signals of one channel. Times are seconds of any clock that only goes forward."""

    def __init__(self, channel: str, settings: CanSignalsSettings) -> None:
        self._channel = channel
        self._settings = settings
        self._tracks: dict[tuple[Layout, int | None, str], Track | None] = {}
        self._places: dict[Place, float] = {}
        self._waiting: list[tuple[float, int, Track]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many signals have a value or the reason why not."""
        return sum(track is not None for track in self._tracks.values())

    def see(self, place: Place, data: bytes, now: float) -> Iterator[Told]:
        """Take in a frame; what of it is to be told at once."""
        self._places[place] = now
        for signal, reading in decoded(place.layout, place.case, data):
            track = self._track(place, signal)
            if track is None:
                continue
            track.newest, track.seen_at = reading, now
            if track.waits or not track.is_worth_telling(now):
                continue
            due = track.told_at + track.limits.interval_s
            if track.told is None or due <= now:
                yield track, track.tell(now)
            else:
                track.waits = True
                heapq.heappush(self._waiting, (due, next(self._numbers), track))

    def due(self, now: float) -> Iterator[Told]:
        """What had to wait until now, and still stands."""
        while self._waiting and self._waiting[0][0] <= now:
            yield from self._released(heapq.heappop(self._waiting)[2], now)

    def rest(self, now: float) -> Iterator[Told]:
        """What has to wait still: nothing more comes."""
        waiting, self._waiting = self._waiting, []
        for _, _, track in waiting:
            yield from self._released(track, now)

    def _released(self, track: Track, now: float) -> Iterator[Told]:
        """It does not wait any more if its place has been lost meanwhile."""
        waited, track.waits = track.waits, False
        if waited and track.is_worth_telling(now):
            yield track, track.tell(now)

    def silent(self, now: float) -> list[Place]:
        """Places where no frame has come for so long that their signals count as absent."""
        general = self._settings.absent_after_s
        return [
            place
            for place, seen_at in self._places.items()
            if now - seen_at >= max(general, _CYCLES * place.layout.cycle_s)
        ]

    def lose(self, place: Place, now: float) -> Iterator[Told]:
        """Forget a silent place; its signals that are nowhere else are absent from now on."""
        seen_at = self._places.pop(place)
        reading = Reading(None, Quality.ABSENT, f"no frame for {now - seen_at:.0f} s")
        for signal in place.layout.present(place.case):
            key = (place.layout, place.address, signal.name)
            track = self._tracks.get(key)
            if track is None or track.seen_at > seen_at:
                continue
            del self._tracks[key]
            track.waits = False
            if track.told is not None and track.told.quality is not Quality.ABSENT:
                track.newest = reading
                yield track, track.tell(now)

    def untold(self, lost: Iterable[Told]) -> None:
        """These could not be handed over: each is told again when its next frame comes."""
        for track, _ in lost:
            track.told = None

    def _track(self, place: Place, signal: Signal) -> Track | None:
        """None where the settings do not want the signal."""
        key = (place.layout, place.address, signal.name)
        if key not in self._tracks:
            self._tracks[key] = self._begun(place, signal)
        return self._tracks[key]

    def _begun(self, place: Place, signal: Signal) -> Track | None:
        message = place.layout.name
        if not self._settings.wants(message, signal.name):
            return None
        common: dict[str, Any] = {"channel": self._channel, "message": message}
        if place.address is not None:
            common["address"] = place.address
        common |= {"signal": signal.name, "unit": signal.unit}
        return Track(common, self._settings.limits_of(message, signal.name))
