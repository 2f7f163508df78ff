"""When which live value is to be read. Pure: the caller has the clock."""

from __future__ import annotations

from collections.abc import Mapping


class Schedule:
    """What has been due longest comes first.

    What is late is read late, once: the times that were missed are not made up for. So where a bus
    is too slow for all of them, fast values take turns, and a slow one waits for one round at most.
    """

    def __init__(self) -> None:
        self._due: dict[int, float] = {}

    def due(self, now: float, intervals: Mapping[int, float]) -> list[int]:
        """The PIDs of *intervals* (PID → s) that are due, what has been due longest first.

        One that is new is due at once.
        """
        for pid in self._due.keys() - intervals.keys():
            del self._due[pid]
        for pid, interval in intervals.items():
            # An interval that was made shorter counts from now on, not after the old one.
            self._due[pid] = min(self._due.get(pid, now), now + interval)
        waiting = [pid for pid in intervals if self._due[pid] <= now]
        return sorted(waiting, key=lambda pid: self._due[pid])

    def asked(self, pid: int, now: float, interval: float) -> None:
        """Note that *pid*, which was due, has been asked for at *now*."""
        self._due[pid] = max(self._due[pid] + interval, now)

    def next(self) -> float | None:
        """When the next one is due; None if there is none."""
        return min(self._due.values(), default=None)
