"""What an event's time is worth, and setting right the times of a clock that was wrong.

A box's monotonic clock does not jump within one boot. Once one moment of a boot is known by both,
the box's monotonic clock and true time, every event of that boot has a true time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from nexus_agent.protocol import Lines, Presence, ProtocolError, parse_time
from nexus_console.db.models import CLOCKS, boots, events, type_spans, untimed
from nexus_console.remarks import COUNT, remark

TOLERANCE: Final = 120_000_000_000
"""Nanoseconds by which an unsynchronised clock may be off before its times are set right."""

SYNCED, UNSYNCED, RETIMED, UNKNOWN = range(len(CLOCKS))

_FARTHEST: Final = 2**62 - TOLERANCE
"""Offsets and monotonic times stay within, so that their sum fits a 64-bit column."""
_MONO: Final = re.compile(r"([0-9]{1,10})\.([0-9]{6})", re.ASCII)
_MAX_BOOT: Final = 64

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class _Moment(NamedTuple):
    """When an event was recorded, by both clocks of the box; time in ns."""

    time: int
    mono: str
    boot: str
    synced: bool


@dataclass(frozen=True, slots=True)
class _Offset:
    """True time less monotonic time, in ns."""

    offset: int
    basis: Literal["synced", "received"]

    def is_better_than(self, other: _Offset) -> bool:
        """Than one that goes by arrival."""
        # A message may have waited on its way, but never came before it was sent: less is nearer.
        return other.basis == "received" and (self.basis == "synced" or self.offset < other.offset)


_Boot = tuple[int, str]
"""(device id, boot id)"""


class Clocks:
    """The clocks of boxes within one transaction; `save` writes what has been found out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._offsets: dict[_Boot, _Offset | None] = {}
        self._learnt: dict[_Boot, tuple[_Offset, int]] = {}
        self._untimed: list[dict[str, Any]] = []
        self._retimed: dict[_Boot, tuple[int, int]] = {}

    def judge(
        self,
        device_id: int,
        stream: int,
        position: int,
        part: Lines,
        received: int,
    ) -> tuple[list[int], list[int]]:
        """Times and clocks (see CLOCKS) of events that will be at *position* and behind it."""
        clocks = set(part.clocks)
        for clock in clocks:
            if clock.synced:
                n = part.clocks.index(clock)
                moment = _Moment(part.times[n], part.monos[n], *clock)
                self._learn(device_id, moment, received)
        if all(clock.synced for clock in clocks):
            return part.times, [SYNCED] * len(part.times)
        moments = [
            _Moment(time, mono, *clock)
            for time, mono, clock in zip(part.times, part.monos, part.clocks, strict=True)
        ]
        found = [self._judge_one(device_id, moment) for moment in moments]
        self._untimed += [
            {
                "device_id": device_id,
                "boot": moment.boot,
                "stream": stream,
                "position": position + n,
                "mono": mono,
            }
            for n, (moment, (_, clock)) in enumerate(zip(moments, found, strict=True))
            if clock == UNKNOWN and (mono := _readable(moment)) is not None
        ]
        return [time for time, _ in found], [clock for _, clock in found]

    def born(self, device_id: int, birth: Presence, received: int) -> None:
        """Learn from a birth that has come just now."""
        if birth.boot is None or birth.mono is None or birth.time is None:
            return
        try:
            moment = _Moment(parse_time(birth.time), birth.mono, birth.boot, bool(birth.synced))
        except ProtocolError:
            return
        self._learn(device_id, moment, received)

    def save(self, now: int) -> None:
        """Write what has been found out. The events must have been written already."""
        if self._untimed:
            self._connection.execute(insert(untimed), self._untimed)
            self._untimed = []
        for boot, (known, received) in self._learnt.items():
            self._save_offset(boot, known, received)
            self._retime(boot, known.offset)
        for (device_id, _), (count, off) in self._retimed.items():
            text = f"the clock was off by {_roughly(off)}: {COUNT} events re-timed"
            remark(self._connection, device_id, "clock", text, now, times=count)

    def _learn(self, device_id: int, moment: _Moment, received: int) -> None:
        """Take the box's time for true if it was synchronised, and else that of arrival here."""
        known = self._known(device_id, moment.boot)
        if known is not None and known.basis == "synced":
            return
        mono, true = _readable(moment), moment.time if moment.synced else received
        if mono is None or abs(true - mono) > _FARTHEST:
            return
        new = _Offset(true - mono, "synced" if moment.synced else "received")
        if known is None or new.is_better_than(known):
            self._offsets[device_id, moment.boot] = new
            self._learnt[device_id, moment.boot] = (new, received)

    def _known(self, device_id: int, boot: str) -> _Offset | None:
        key = (device_id, boot)
        if key not in self._offsets:
            row = None
            if _is_name(boot):
                row = self._connection.execute(
                    select(boots.c.offset, boots.c.basis).filter_by(device_id=device_id, boot=boot)
                ).one_or_none()
            self._offsets[key] = None if row is None else _Offset(row.offset, row.basis)
        return self._offsets[key]

    def _judge_one(self, device_id: int, moment: _Moment) -> tuple[int, int]:
        if moment.synced:
            return moment.time, SYNCED
        known, mono = self._known(device_id, moment.boot), _readable(moment)
        if known is None or mono is None:
            return moment.time, UNKNOWN
        true = mono + known.offset
        if abs(moment.time - true) <= TOLERANCE:
            return moment.time, UNSYNCED
        self._count((device_id, moment.boot), 1, moment.time - true)
        return true, RETIMED

    def _count(self, boot: _Boot, events: int, off: int) -> None:
        count, most = self._retimed.get(boot, (0, 0))
        self._retimed[boot] = (count + events, max(most, abs(off)))

    def _save_offset(self, boot: _Boot, known: _Offset, received: int) -> None:
        key = {"device_id": boot[0], "boot": boot[1]}
        values = {"offset": known.offset, "basis": known.basis, "seen": received}
        changed = self._connection.execute(update(boots).filter_by(**key).values(values))
        if changed.rowcount == 0:
            self._connection.execute(insert(boots).values(**key, **values))

    def _retime(self, boot: _Boot, offset: int) -> None:
        """Set right what has waited for the *offset* of *boot*."""
        waiting = and_(untimed.c.device_id == boot[0], untimed.c.boot == boot[1])
        bounds = self._connection.execute(
            select(
                func.min(untimed.c.position).label("lowest"),
                func.max(untimed.c.position).label("highest"),
            ).where(waiting)
        ).one()
        if bounds.lowest is None:
            return
        true = untimed.c.mono + offset
        same = and_(
            waiting,
            events.c.device_id == untimed.c.device_id,
            events.c.stream == untimed.c.stream,
            events.c.position == untimed.c.position,
            events.c.clock == UNKNOWN,
        )
        wrong = or_(events.c.time > true + TOLERANCE, events.c.time < true - TOLERANCE)
        example = self._connection.execute(
            select(events.c.time, true.label("true")).where(same, wrong).limit(1)
        ).one_or_none()
        if example is not None:
            changed = self._connection.execute(
                update(events).where(same, wrong).values(time=true, clock=RETIMED)
            )
            self._count(boot, changed.rowcount, example.time - example.true)
            self._widen(waiting, bounds.lowest, bounds.highest)
        self._connection.execute(update(events).where(same).values(clock=UNSYNCED))
        self._connection.execute(delete(untimed).where(waiting))

    def _widen(self, waiting: ColumnElement[bool], lowest: int, highest: int) -> None:
        """Take the times anew of the type spans that hold an event which waits."""
        inside = and_(
            waiting,
            untimed.c.device_id == type_spans.c.device_id,
            untimed.c.stream == type_spans.c.stream,
            untimed.c.position.between(type_spans.c.first, type_spans.c.last),
        )
        held = and_(
            events.c.device_id == type_spans.c.device_id,
            events.c.stream == type_spans.c.stream,
            events.c.position.between(type_spans.c.first, type_spans.c.last),
            events.c.type == type_spans.c.type,
        )

        def of_held(what: ColumnElement[int], otherwise: ColumnElement[int]) -> Any:
            return func.coalesce(select(what).where(held).scalar_subquery(), otherwise)

        self._connection.execute(
            update(type_spans)
            .where(
                type_spans.c.first <= highest,
                type_spans.c.last >= lowest,
                exists().where(inside),
            )
            .values(
                first_time=of_held(func.min(events.c.time), type_spans.c.first_time),
                last_time=of_held(func.max(events.c.time), type_spans.c.last_time),
            )
        )


def _readable(moment: _Moment) -> int | None:
    """Monotonic time in ns, or None where it cannot be worked with."""
    match = _MONO.fullmatch(moment.mono)
    if match is None or not _is_name(moment.boot):
        return None
    mono = int(match[1]) * 1_000_000_000 + int(match[2]) * 1000
    return mono if mono <= _FARTHEST else None


def _is_name(boot: str) -> bool:
    return len(boot) <= _MAX_BOOT and boot.isprintable()


def _roughly(span: int) -> str:
    """*span* (ns) for people, by its two largest units: `3 d 4 h`."""
    seconds = span // 1_000_000_000
    for (size, unit), (part, smaller) in pairwise(_UNITS):
        if seconds >= size:
            return f"{seconds // size:,} {unit} {seconds % size // part} {smaller}"
    return f"{seconds} s"
