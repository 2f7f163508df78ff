"""What was sent, by day and stream, and with it the link policy's word on what may be sent.

Counted are the data messages: payload, topic and properties, those sent again too. The counts are
written down once a minute; a power cut forgets that much.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from datetime import timedelta
from typing import Any, Final

import structlog

from nexus_agent.clock import Clock
from nexus_agent.protocol import Stream
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.sync.policy import MEGABYTE, Hold, Policy, Usage

log = structlog.get_logger("traffic")

FLUSH_S: Final = 60.0
KEPT_DAYS: Final = 396
"""Thirteen months."""

_WRITE: Final = (
    "INSERT INTO traffic (day, stream, bytes) VALUES (?,?,?) "
    "ON CONFLICT (day, stream) DO UPDATE SET bytes=excluded.bytes"
)


class Rate:
    """Bytes a second over the last minutes."""

    def __init__(self, clock: Clock, *, bucket_s: float, buckets: int) -> None:
        self._clock = clock
        self._bucket_s = bucket_s
        self._sums: deque[tuple[int, int]] = deque(maxlen=buckets)
        self._started = self._now()

    def _now(self) -> float:
        return self._clock.stamp().mono / 1e9

    def add(self, size: int) -> None:
        bucket = int(self._now() / self._bucket_s)
        if self._sums and self._sums[-1][0] == bucket:
            size += self._sums.pop()[1]
        self._sums.append((bucket, size))

    def while_busy(self) -> float:
        """Over the buckets in which there was something: what the line carries when it is used."""
        found = self._recent()
        if not found:
            return 0.0
        full = (len(found) - 1) * self._bucket_s
        newest = min(self._now() - found[-1][0] * self._bucket_s, self._bucket_s)
        return sum(size for _, size in found) / max(full + newest, 1.0)

    def on_average(self) -> float:
        """Over all of the time, silence included."""
        span = min(self._now() - self._started, self._bucket_s * (self._sums.maxlen or 1))
        return sum(size for _, size in self._recent()) / max(span, 1.0)

    def _recent(self) -> list[tuple[int, int]]:
        oldest = int(self._now() / self._bucket_s) - (self._sums.maxlen or 1)
        return [item for item in self._sums if item[0] > oldest]


class Traffic:
    """Call `open`, then keep `run` running, and `flush` at the end."""

    def __init__(self, database: Database, clock: Clock, policy: Policy) -> None:
        self._database = database
        self._clock = clock
        self.policy = policy
        self._days: dict[tuple[str, Stream], int] = {}
        self._unwritten: set[tuple[str, Stream]] = set()
        self.total: dict[Stream, int] = dict.fromkeys(Stream, 0)
        """Bytes since the start."""
        self.messages: dict[Stream, int] = dict.fromkeys(Stream, 0)
        """And the messages that they were."""
        self.rate = Rate(clock, bucket_s=5.0, buckets=60)

    async def open(self) -> None:
        """Read what was counted before."""
        rows = await self._database.read("SELECT day, stream, bytes FROM traffic")
        self._days = {(day, Stream(name)): size for day, name, size in rows}

    def count(self, stream: Stream, size: int) -> None:
        """*size* bytes of *stream* are handed to the broker."""
        key = self._today(), stream
        self._days[key] = self._days.get(key, 0) + size
        self._unwritten.add(key)
        self.total[stream] += size
        self.messages[stream] += 1
        self.rate.add(size)

    def _today(self) -> str:
        return self.policy.local(self._clock.stamp().wall).date().isoformat()

    def usage(self) -> Usage:
        """What counts for today and this month.

        Days that are still to come were counted by a clock that was ahead: they count for today,
        so that setting it back gives no fresh budget.
        """
        today = self._today()
        month = today[:7]
        of_day, of_month = dict.fromkeys(Stream, 0), dict.fromkeys(Stream, 0)
        for (day, stream), size in self._days.items():
            if day >= today:
                of_day[stream] += size
            if day >= month:
                of_month[stream] += size
        return Usage(of_day, of_month)

    def document(self) -> dict[str, Any]:
        """Today's and this month's bytes and budgets (None where there is none), for people."""
        usage, settings = self.usage(), self.policy.settings
        periods = ("day", usage.day, settings.day_mb), ("month", usage.month, settings.month_mb)
        return {
            period: {
                "bytes": sum(used.values()),
                "budget_bytes": int(budget.total * MEGABYTE) or None,
                "streams": {
                    str(s): {
                        "bytes": used.get(s, 0),
                        "budget_bytes": int(budget.of(s) * MEGABYTE) or None,
                    }
                    for s in Stream
                },
            }
            for period, used, budget in periods
        }

    def hold(self, stream: Stream) -> Hold | None:
        """Why *stream* may not be sent now, or None."""
        if self.policy.open:
            return None
        return self.policy.hold(stream, self._clock.stamp().wall, self.usage())

    def wait(self, hold: Hold) -> float:
        """Seconds until *hold* ends; infinite where no end is in sight."""
        if hold.until is None:
            return float("inf")
        return max(hold.until - self._clock.stamp().wall, 0) / 1e9

    async def run(self) -> None:
        """Write the counts down, once a minute."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was counted since the last time, and forget what is old."""
        removed = self._put_right()
        if not self._unwritten and not removed:
            return
        keys, self._unwritten = self._unwritten, set()
        rows = [(day, stream, self._days[day, stream]) for day, stream in keys]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM traffic WHERE day=? AND stream=?", removed)
            connection.executemany(_WRITE, rows)

        try:
            await self._database.run(write)
        except StoreError as error:
            self._unwritten |= keys
            log.warning("traffic_not_written", error=str(error))

    def _put_right(self) -> list[tuple[str, Stream]]:
        """Book days that are still to come on today, and drop those that are old; these keys go.

        Only a synchronised clock may say so: a wrong one would take the month's count away.
        """
        stamp = self._clock.stamp()
        if not stamp.synced:
            return []
        today = self.policy.local(stamp.wall).date()
        oldest = (today - timedelta(days=KEPT_DAYS)).isoformat()
        removed = [
            (day, stream) for day, stream in self._days if not oldest <= day <= today.isoformat()
        ]
        for day, stream in removed:
            size = self._days.pop((day, stream))
            self._unwritten.discard((day, stream))
            if day > oldest:
                key = today.isoformat(), stream
                self._days[key] = self._days.get(key, 0) + size
                self._unwritten.add(key)
        return removed
