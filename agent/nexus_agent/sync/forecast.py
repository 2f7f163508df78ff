"""When what waits will be gone, or when the disk will be full: figures, the words are the CLI's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from nexus_agent.config import LinkSection
from nexus_agent.protocol import Stream
from nexus_agent.sync.policy import MEGABYTE, Usage

PERIOD_S: Final = {"day": 86_400.0, "month": 30 * 86_400.0}


@dataclass(frozen=True, slots=True)
class Forecast:
    """limited_by: what sets the pace. seconds: until nothing waits any more; for `offline` until
    the quota is reached; None where that is not known or never happens. bytes: what the limit lets
    out in each period, or the quota.
    """

    limited_by: Literal["nothing", "line", "unknown", "budget", "metered", "offline"]
    seconds: float | None = None
    bytes: float | None = None
    period: Literal["second", "day", "month"] | None = None
    growing: bool = False
    """More comes in than the budget lets out."""

    def document(self) -> dict[str, Any]:
        return asdict(self)


def offline(used: int, quota: int, intake: float) -> Forecast:
    """Nothing moves. used and quota: bytes on the disk; intake: bytes a second that come in."""
    seconds = max(quota - used, 0) / intake if quota and intake > 0 else None
    return Forecast("offline", seconds, quota or None)


def online(
    waiting: Mapping[Stream, int], settings: LinkSection, usage: Usage, rate: float, intake: float
) -> Forecast:
    """waiting: bytes by stream; rate and intake: bytes a second that go out and come in."""
    total = sum(waiting.values())
    if not total:
        return Forecast("nothing")
    if settings.metered and total > waiting.get(Stream.ALERT, 0):
        return Forecast("metered")
    line = Forecast("line", total / rate, rate, "second") if rate else Forecast("unknown")
    slowest = line
    for found in _budgets(waiting, settings, usage, intake):
        if found.growing:
            return found
        if (found.seconds or 0) > (slowest.seconds or 0):
            slowest = found
    return slowest


def _budgets(
    waiting: Mapping[Stream, int], settings: LinkSection, usage: Usage, intake: float
) -> list[Forecast]:
    """One for each budget that what waits does not fit into."""
    found = []
    periods: tuple[Literal["day", "month"], ...] = ("day", "month")
    for period in periods:
        budget = settings.day_mb if period == "day" else settings.month_mb
        used = usage.day if period == "day" else usage.month
        limits = [(budget.total, sum(waiting.values()), sum(used.values()), intake)]
        # How much comes in is known for all streams together only.
        limits += [(budget.of(s), waiting.get(s, 0), used.get(s, 0), 0.0) for s in Stream]
        for megabytes, waits, spent, comes_in in limits:
            limit = megabytes * MEGABYTE
            beyond = waits - max(limit - spent, 0)
            if not limit or not waits or beyond <= 0:
                continue
            growing = comes_in * PERIOD_S[period] > limit
            seconds = None if growing else math.ceil(beyond / limit) * PERIOD_S[period]
            found.append(Forecast("budget", seconds, limit, period, growing))
    return found
