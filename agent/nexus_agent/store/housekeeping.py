"""What the outbox does on the side: it forgets, merges, tells of losses, and mends the database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from nexus_agent.clock import Clock
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream
from nexus_agent.store import ledger, segments
from nexus_agent.store.database import Database
from nexus_agent.store.erasure import Erasure
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.reseal import reseal
from nexus_agent.store.space import MEGABYTE, drop

log = structlog.get_logger("housekeeping")

TICK_S: Final = 1.0
TELL_S: Final = 5.0
"""Losses that belong together are gathered so long before the console is told."""
TIDY_S: Final = 60.0
REMEMBER_S: Final = 600.0
_REMEMBER_NS: Final = int(REMEMBER_S) * 1_000_000_000
_HOUR_NS: Final = 3_600_000_000_000


class Lifetime(Protocol):
    """How long what waits may wait; `[outbox.ttl_hours]` has it. 0 is for ever."""

    def of(self, stream: Stream) -> float: ...


@dataclass(frozen=True, slots=True)
class Keep:
    """How long delivered events stay, and how much of them."""

    hours: float
    megabytes: float


@dataclass(slots=True)
class _Due:
    tell: float = 0.0
    tidy: float = field(default=TIDY_S)
    remember: float = field(default=REMEMBER_S)


class Housekeeper:
    """Keep `run` running."""

    def __init__(
        self, outbox: Outbox, database: Database, clock: Clock, keep: Keep, lifetime: Lifetime
    ) -> None:
        self._outbox = outbox
        self._database = database
        self._clock = clock
        self.keep = keep
        self.lifetime = lifetime
        self.erasure = Erasure(outbox, database)
        self.trouble: str | None = None
        """Why the last round failed; None where it did not."""
        self._resealed = dict.fromkeys(Stream, 0)

    async def run(self) -> None:
        """Look once a second until cancelled; what fails is tried again."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        due = _Due(start, start + TIDY_S, start + REMEMBER_S)
        told = 0
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._outbox.heal()
                await self._outbox.save()
                now = loop.time()
                if now >= due.tell:
                    due.tell = now + TELL_S
                    await self._outbox.report_losses()
                if now >= due.tidy:
                    due.tidy = now + TIDY_S
                    await self.tidy()
                self._clock.stamp()
                # A true time after long without is worth keeping: the power may go in a minute.
                if now >= due.remember or self._clock.floor - told >= _REMEMBER_NS:
                    told = self._clock.floor
                    due.remember = now + REMEMBER_S
                    await self._outbox.remember()
            except (StoreError, EmitError) as error:
                self.trouble = str(error)
                log.warning("not_now", error=str(error))
            else:
                self.trouble = None

    async def tidy(self) -> None:
        """One round of everything that frees or saves space. Raises StoreError."""
        for stream in Stream:
            await self._expire(stream)
        await self._trim()
        await self.erasure.finish()
        for stream in Stream:
            self._resealed[stream] = await reseal(
                self._outbox, self._database, stream, self._resealed[stream]
            )
        await self._outbox.write(lambda c: ledger.forget(c, self._released()))
        await self._give_back()

    def _released(self) -> dict[Stream, int]:
        return {stream: self._outbox.released(stream) for stream in Stream}

    async def _expire(self, stream: Stream) -> None:
        """Drop what waits for too long, and write it down.

        Only a synchronised clock may say so, of times that a synchronised clock has stamped; what
        stands before such a segment is older still, whatever its own times say.
        """
        hours, now = self.lifetime.of(stream), self._clock.stamp()
        if not hours or not now.synced:
            return
        horizon = _before(now.wall, hours)
        more = True
        while more:
            more = False
            # Looked up at each step: what is delivered meanwhile is no loss.
            for span in self._outbox.positions.waiting(stream):
                through = await self._expired(stream, span, horizon)
                if through is not None:
                    more |= await self._drop_some(stream, (span[0], through), ledger.TOO_OLD)
                    log.warning("expired", stream=str(stream), through=segments.sequence(through))

    async def _expired(self, stream: Stream, span: tuple[int, int], horizon: int) -> int | None:
        """The last segment within *span* that is proven to be from before *horizon*."""
        first = await self._database.read(segments.FIRST_SYNCED[stream], span)
        if not first or first[0][0] >= horizon:
            return None  # the usual case, and cheap; the look at all is not
        row = (await self._database.read(segments.EXPIRED[stream], (*span, horizon)))[0]
        return None if row[0] is None else int(row[0])

    async def _trim(self) -> None:
        """Forget delivered segments beyond what the history may keep, the oldest first."""
        now = self._clock.stamp()
        horizon = _before(now.wall, self.keep.hours)
        share = int(self.keep.megabytes * MEGABYTE / len(Stream))
        for stream in Stream:
            released = self._outbox.released(stream)
            through = 0
            if now.synced or not self.keep.hours:
                through = await self._expired(stream, (0, released), horizon) or 0
            if rows := await self._database.read(segments.BEYOND[stream], (released, share)):
                through = max(through, rows[0][0])
            more = bool(through)
            while more:
                more = await self._drop_some(stream, (0, through))

    async def _drop_some(
        self, stream: Stream, span: tuple[int, int], cause: str | None = None
    ) -> bool:
        """Delete as much of *span* as the log has room for; whether there may be more."""
        step = self._database.space.step_bytes
        return await self._outbox.write(lambda c: drop(c, stream, span, step, cause)) >= step

    async def _give_back(self) -> None:
        """Return free pages to the disk in steps, so that nobody waits long for the writer."""
        space = self._database.space
        more = True
        while more:
            more = await self._outbox.write(lambda c: space.shrink(c, self._outbox.positions))
        more = True
        while more:
            more = await self._database.tend(space.give_back)
        if self._outbox.trouble is None:
            await self._database.tend(lambda _: space.keep_reserve())


def _before(wall: int, hours: float) -> int:
    """The time (ns) so many hours before *wall*, or the earliest that SQLite can compare with."""
    return max(wall - int(hours * _HOUR_NS), -(2**63))
