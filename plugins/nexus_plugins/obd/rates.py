"""How fast an adapter and the vehicle behind it answer, over a while. Pure: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_KEPT: Final = 10_000
"""Latencies kept of one while: more than any adapter answers in a minute."""


@dataclass(slots=True)
class _Read:
    """How often one value was read, the first time and the last."""

    first: float
    last: float
    count: int = 1

    @property
    def interval(self) -> float | None:
        return (self.last - self.first) / (self.count - 1) if self.count > 1 else None


@dataclass(slots=True)
class Rates:
    """Figures since *since*, on the caller's clock in seconds."""

    since: float
    questions: int = 0
    answers: int = 0
    _latencies: list[float] = field(default_factory=list)
    _values: dict[int, _Read] = field(default_factory=dict)

    def asked(self, seconds: float | None) -> None:
        """Note a question, and the *seconds* until the end of its answer; None: nobody answered."""
        self.questions += 1
        if seconds is None:
            return
        self.answers += 1
        if len(self._latencies) < _KEPT:
            self._latencies.append(seconds)

    def read(self, pid: int, now: float) -> None:
        """Note that there was an answer about *pid*."""
        known = self._values.get(pid)
        if known is None:
            self._values[pid] = _Read(now, now)
        else:
            known.last, known.count = now, known.count + 1

    def latency_ms(self, share: float) -> float | None:
        """The latency that this *share* of the answers did not exceed."""
        ordered = sorted(self._latencies)
        if not ordered:
            return None
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000, 1)

    def document(
        self, adapter: str, now: float, wanted: Mapping[int, tuple[str, float]]
    ) -> dict[str, Any]:
        """The data of `adapter.rates`. wanted: PID → its name and its interval in s."""
        values = [
            {"pid": pid, "name": name, "wanted": interval, "achieved": self._achieved(pid)}
            for pid, (name, interval) in sorted(wanted.items())
        ]
        return {
            "adapter": adapter,
            "seconds": round(now - self.since, 3),
            "questions": self.questions,
            "answers": self.answers,
            "latency_p50": self.latency_ms(0.5),
            "latency_p95": self.latency_ms(0.95),
            "values": values,
        }

    def _achieved(self, pid: int) -> float | None:
        known = self._values.get(pid)
        interval = None if known is None else known.interval
        return None if interval is None else round(interval, 3)
