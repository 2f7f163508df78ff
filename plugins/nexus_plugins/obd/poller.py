"""Live values: which are asked for when, and in how many questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nexus_agent.plugin import Context, Quality
from nexus_plugins.obd import batch, engine
from nexus_plugins.obd.answer import UNKNOWN_ECU, Answer
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.pids import ENGINE_SPEED, PIDS
from nexus_plugins.obd.rates import Rates
from nexus_plugins.obd.schedule import Schedule
from nexus_plugins.obd.settings import AdapterSettings, ObdSettings
from nexus_plugins.obd.teller import Teller
from nexus_plugins.obd.vehicle import Vehicle

RATES_S: Final = 60.0
"""How often `adapter.rates` is told."""

_GLANCE_S: Final = 0.5
"""Settings that change while it rests are seen this soon."""
_ANYBODY: Final = 0x00
"""The PID that every vehicle has (SAE J1979 appendix A)."""
_CAN: Final = ("ISO 15765-4",)


class Poller:
    """Reads the live values of one vehicle through one adapter."""

    def __init__(
        self,
        adapter: str,
        elm: Elm327,
        vehicle: Vehicle,
        car: Mapping[str, str],
        context: Context[ObdSettings],
        settings: Callable[[], AdapterSettings],
    ) -> None:
        self._adapter = adapter
        self._elm = elm
        self._vehicle = vehicle
        self._teller = Teller(adapter, vehicle, car, context)
        self._settings = settings
        self._schedule = Schedule()
        self._rates = Rates(asyncio.get_running_loop().time())
        self._alone: set[int] = set()
        self._together = 0
        self._alive = self._looked = self._answered = self._rates.since

    async def try_batch(self) -> int | None:
        """Find out how many values the adapter and the vehicle take in one question.

        None where there are no two values to try it with.
        """
        settings = self._settings()
        asked = self._group(list(self._intervals(settings))) if settings.batch else ()
        if len(asked) > 1:
            await self._ask_together(asked)
            return max(self._together, 1)
        return None if self._can_batch() else 1

    async def run(self, goes_on: Callable[[], bool], report: Callable[[str], None]) -> str | None:
        """Read until the engine is off, and say why; None once *goes_on* says no.

        Once a minute the rates are told, and in a few words to *report*.
        """
        while goes_on():
            await self.turn()
            if (why := self._stands()) is not None:
                return why
            self._tell_rates(report)
            await self._rest()
        return None

    async def turn(self) -> None:
        """Ask one question, if any is due."""
        settings = self._settings()
        intervals = self._intervals(settings)
        due = self._schedule.due(asyncio.get_running_loop().time(), intervals)
        if due:
            await self._read(due, intervals, settings)

    def _intervals(self, settings: AdapterSettings) -> dict[int, float]:
        """PID → s, of what the vehicle supports, and of what tells whether its engine runs."""
        known = self._vehicle.all_pids
        intervals = {pid: settings.interval_of(pid) for pid in settings.pids if pid in known}
        if ENGINE_SPEED in known:
            intervals.setdefault(ENGINE_SPEED, settings.interval_s)
        return intervals or {_ANYBODY: settings.interval_s}

    async def _rest(self) -> None:
        now = asyncio.get_running_loop().time()
        until = self._schedule.next()
        if until is not None and until > now:
            await self._elm.rest(min(until - now, _GLANCE_S))

    # -- asking ----------------------------------------------------------------------------------

    async def _read(
        self, due: Sequence[int], intervals: Mapping[int, float], settings: AdapterSettings
    ) -> None:
        """Ask one question for what is due longest, and for what can go with it."""
        now = asyncio.get_running_loop().time()
        asked = self._group(due) if settings.batch else due[:1]
        for pid in asked:
            self._schedule.asked(pid, now, intervals[pid])
        if len(asked) > 1:
            asked = await self._read_together(asked)
        for pid in asked:
            self._take(pid, await self._ask(batch.request([pid])))

    def _group(self, due: Sequence[int]) -> Sequence[int]:
        if due[0] in self._alone | {_ANYBODY} or not self._can_batch():
            return due[:1]
        return [pid for pid in due if pid not in self._alone][: batch.MOST]

    def _can_batch(self) -> bool:
        protocol = self._vehicle.protocol or ""
        return protocol.startswith(_CAN) and UNKNOWN_ECU not in self._vehicle.supported

    async def _read_together(self, asked: Sequence[int]) -> Sequence[int]:
        """Ask for all of them at once; return those that must be asked for one by one."""
        told = await self._ask_together(asked)
        for pid, answer in told.items():
            self._take(pid, answer)
        return [pid for pid in asked if pid not in told]

    async def _ask_together(self, asked: Sequence[int]) -> dict[int, Answer]:
        """PID → the answer, of those that all who have the value have told.

        What else an answer says cannot be told to be the vehicle's or the adapter's doing, so it is
        never a finding about a value: that is asked for alone, now and from now on.
        """
        answer = await self._ask(batch.request(asked))
        parts = batch.split(answer, {pid: PIDS[pid].length for pid in asked})
        told = {pid: part for pid, part in parts.items() if self._all_told(pid, part)}
        if answer.replies or not self._together:
            # Whoever has worked before and is silent now is silent for another reason.
            self._alone.update(parts.keys() - told.keys())
        self._together = max(self._together, len(told))
        return told

    def _all_told(self, pid: int, answer: Answer) -> bool:
        ecus = [reply.ecu for reply in answer.replies]
        return set(self._vehicle.supporters(pid)) <= set(ecus) and all(
            reply.quality is Quality.OK for reply in answer.replies
        )

    async def _ask(self, request: str) -> Answer:
        answer = await self._elm.ask(request)
        self._rates.asked(self._elm.latency_s if answer.replies else None)
        return answer

    # -- what the answers say --------------------------------------------------------------------

    def _take(self, pid: int, answer: Answer) -> None:
        """Tell the value, and see what it says about the engine."""
        now = asyncio.get_running_loop().time()
        if answer.replies:
            self._rates.read(pid, now)
            self._answered = now
        if pid == ENGINE_SPEED or ENGINE_SPEED not in self._vehicle.all_pids:
            runs = engine.runs(answer) if pid == ENGINE_SPEED else bool(answer.replies)
            self._looked = now
            self._alive = now if runs else self._alive
        if pid in self._settings().pids:
            self._teller.values(PIDS[pid], answer)

    def _stands(self) -> str | None:
        """Why polling is to stop; None where it is not."""
        idle, longest = self._looked - self._alive, self._settings().idle_after_s
        if idle < longest:
            return None
        silent = self._looked - self._answered > longest / 2
        what = "the vehicle does not answer" if silent else "the engine stands still"
        return f"{what} since {idle:.0f} s"

    def _tell_rates(self, report: Callable[[str], None]) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._rates.since < RATES_S:
            return
        intervals = self._intervals(self._settings())
        wanted = {pid: (PIDS[pid].name, s) for pid, s in intervals.items() if pid in PIDS}
        document = self._rates.document(self._adapter, now, wanted)
        report(_summary(document))
        self._teller.tell("adapter.rates", document)
        self._rates = Rates(now)


def _summary(rates: Mapping[str, Any]) -> str:
    """The rates in a few words, for people."""
    text = f"{rates['questions'] / rates['seconds']:.1f} questions/s"
    if rates["latency_p50"] is None:
        return f"{text}, none answered"
    return f"{text}, answered in {rates['latency_p50']:.0f} ms, 95 % in {rates['latency_p95']:.0f}"
