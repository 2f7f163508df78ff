"""The link policy: which stream may be sent now, and if not, why and until when. Pure: no I/O.

Days, months and quiet hours are those of the box's own time zone. Alerts are never held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from nexus_agent.config import LinkSection, TrafficBudget
from nexus_agent.protocol import Stream

MEGABYTE: Final = 1_000_000
_NS: Final = 1_000_000_000
_MINUTE: Final = 60
_LOOKOUT_MINUTES: Final = 3 * 24 * 60
"""Quiet hours that do not end within so many minutes have no end."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes by stream that count for the day and for the month of one moment."""

    day: Mapping[Stream, int] = field(default_factory=dict)
    month: Mapping[Stream, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """A stream waits. until: wall time (ns) when it goes on if nothing else is sent; None: no end
    is in sight.
    """

    reason: str
    until: int | None


class Policy:
    """What `[link]` says. zone: the box's time zone, the system's own if None."""

    def __init__(self, settings: LinkSection, zone: tzinfo | None = None) -> None:
        self.settings = settings
        self.open = settings == LinkSection()
        """Whether nothing is ever held."""
        self._zone = zone
        self._quiet = [(_clock(text[:5]), _clock(text[6:])) for text in settings.quiet_hours]
        self._quiet_end = lru_cache(maxsize=4)(self._find_quiet_end)

    def local(self, now: int) -> datetime:
        """The box's calendar and clock at wall time *now* (ns)."""
        return datetime.fromtimestamp(now // _NS, self._zone)

    def hold(self, stream: Stream, now: int, usage: Usage) -> Hold | None:
        """Why *stream* may not be sent at wall time *now* (ns), or None."""
        found = self._first(stream, now, usage)
        if found is None:
            return None
        # Where one hold ends, another may begin: the end is told that lasts.
        following: Hold | None = found
        until = found.until
        while following is not None and until is not None:
            following = self._first(stream, until, self._later(now, until, usage))
            until = until if following is None else following.until
        return Hold(found.reason, until)

    def _later(self, now: int, then: int, usage: Usage) -> Usage:
        """What of *usage* still counts at the later moment *then*."""
        before, after = self.local(now), self.local(then)
        same_month = (before.year, before.month) == (after.year, after.month)
        return Usage(
            day=usage.day if before.date() == after.date() else {},
            month=usage.month if same_month else {},
        )

    def _first(self, stream: Stream, now: int, usage: Usage) -> Hold | None:
        if stream is Stream.ALERT:
            return None
        if self.settings.metered:
            return Hold("the line is metered", None)
        return (
            self._over_budget("month", self.settings.month_mb, stream, usage.month, now)
            or self._over_budget("day", self.settings.day_mb, stream, usage.day, now)
            or self._is_quiet(now)
        )

    def _over_budget(
        self,
        period: str,
        budget: TrafficBudget,
        stream: Stream,
        used: Mapping[Stream, int],
        now: int,
    ) -> Hold | None:
        if budget.total and sum(used.values()) >= budget.total * MEGABYTE:
            reason = f"the {period}'s {budget.total:,g} MB are used up"
        elif budget.of(stream) and used.get(stream, 0) >= budget.of(stream) * MEGABYTE:
            reason = f"the {period}'s {budget.of(stream):,g} MB for {_NAMES[stream]} are used up"
        else:
            return None
        return Hold(reason, self._end_of(period, now))

    def _end_of(self, period: str, now: int) -> int:
        """When the day or month of *now* is over: the first moment of the next one."""
        today = self.local(now).date()
        if period == "day":
            following = today + timedelta(days=1)
        else:
            following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
        start = datetime.combine(following, time(), self._zone)
        return int(start.timestamp()) * _NS

    def _is_quiet(self, now: int) -> Hold | None:
        if not self._quiet or not self._quiet_at(now // _NS):
            return None
        end = self._quiet_end(now // _NS // _MINUTE)
        return Hold("quiet hours", None if end is None else end * _MINUTE * _NS)

    def _find_quiet_end(self, minute: int) -> int | None:
        """The first minute that is not quiet. Looked for one by one: summer time comes and goes."""
        ahead = range(minute + 1, minute + _LOOKOUT_MINUTES)
        return next((m for m in ahead if not self._quiet_at(m * _MINUTE)), None)

    def _quiet_at(self, seconds: int) -> bool:
        local = datetime.fromtimestamp(seconds, self._zone)
        return any(_within(local.hour * 60 + local.minute, *span) for span in self._quiet)


_NAMES: Final = {Stream.EVENT: "events", Stream.TELEMETRY: "telemetry", Stream.LOG: "logs"}


def _clock(text: str) -> int:
    """Minutes since midnight of `HH:MM`."""
    return int(text[:2]) * 60 + int(text[3:])


def _within(minute: int, start: int, end: int) -> bool:
    """Whether it is between *start* and *end*, over midnight too; equal ones are a whole day."""
    if start < end:
        return start <= minute < end
    return minute >= start or minute < end
