"""When which live value is to be read. Pure: the caller has the clock."""

from __future__ import annotations

from collections.abc import Mapping


class Schedule:
    """Of what is due, what is nearest to being due again comes first.

    So fast values stay fast on a bus that is too slow for all of them, and slow ones still get
    their turn once they have waited for their own interval. What is late is read late, once: the
    times that were missed are not made up for.
    """

    def __init__(self) -> None:
        self._due: dict[int, float] = {}

    def due(self, now: float, intervals: Mapping[int, float]) -> list[int]:
        """The PIDs of *intervals* (PID → s) that are due, the most urgent first.

        One that is new is due at once.
        """
        for pid in self._due.keys() - intervals.keys():
            del self._due[pid]
        for pid, interval in intervals.items():
            # An interval that was made shorter counts from now on, not after the old one.
            self._due[pid] = min(self._due.get(pid, now), now + interval)
        waiting = [pid for pid, when in self._due.items() if when <= now]
        return sorted(waiting, key=lambda pid: self._due[pid] + intervals[pid])

    def asked(self, pid: int, now: float, interval: float) -> None:
        """Note that *pid*, which was due, has been asked for at *now*."""
        self._due[pid] = max(self._due[pid] + interval, now)

    def next(self) -> float | None:
        """When the next one is due; None if there is none."""
        return min(self._due.values(), default=None)
