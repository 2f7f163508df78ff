"""Where a message's signals lie in its bytes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

OTHER: Final = -1
"""A multiplexer that is not there itself, or has a value that no signal depends on."""

Case = tuple[int, ...]
"""The value of each of a message's multiplexers, in their order; or SHORT."""
SHORT: Final = (-2,)
"""The frame is shorter than its message, and says nothing: whoever sent it means something else."""
Numbers = tuple[int, int]
"""A message's bytes as one number: the first byte is the lowest, or the highest."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal. shift: how many bits lie below it in the message's number of its byte order."""

    name: str
    unit: str
    shift: int
    length: int
    big_endian: bool
    signed: bool
    is_float: bool
    scale: float
    offset: float
    words: Mapping[int, str]
    """What the database calls single raw values."""
    multiplexer: str | None
    """The signal that says whether this one is there, if one does."""
    cases: frozenset[int]
    """Its values that say so."""

    def bits(self, numbers: Numbers) -> int:
        """The signal's bits as they are, without a sign."""
        return numbers[self.big_endian] >> self.shift & (1 << self.length) - 1


class Layout:
    """One message. identifier: without flags, 11 or 29 bits; length: in bytes; cycle_s: from one
    to the next, 0 where the database does not say.
    """

    def __init__(
        self,
        name: str,
        identifier: int,
        length: int,
        signals: Sequence[Signal],
        *,
        extended: bool = False,
        j1939: bool = False,
        cycle_s: float = 0.0,
    ) -> None:
        self.name = name
        self.identifier = identifier
        self.length = length
        self.signals = tuple(signals)
        self.extended = extended
        self.j1939 = j1939
        self.cycle_s = cycle_s
        self._multiplexers = tuple(_multiplexers(self.signals))

    def numbers(self, data: bytes) -> Numbers:
        """*data* is at least as long as the message; what is beyond it is padding."""
        used = data[: self.length]
        return int.from_bytes(used, "little"), int.from_bytes(used, "big")

    def case_of(self, data: bytes) -> Case:
        """Which of the multiplexed signals are in *data*."""
        if len(data) < self.length:
            return SHORT
        if not self._multiplexers:
            return ()
        numbers = self.numbers(data)
        found: dict[str, int] = {}
        for signal, known in self._multiplexers:
            value = signal.bits(numbers) if _is_there(signal, found) else OTHER
            found[signal.name] = value if value in known else OTHER
        return tuple(found.values())

    @lru_cache(maxsize=4096)  # noqa: B019 - layouts live as long as their plugin runs
    def present(self, case: Case) -> tuple[Signal, ...]:
        """The signals that are there in that case; those of every case, if it is SHORT."""
        if case == SHORT:
            return tuple(signal for signal in self.signals if signal.multiplexer is None)
        names = (signal.name for signal, _ in self._multiplexers)
        found = dict(zip(names, case, strict=True))
        return tuple(signal for signal in self.signals if _is_there(signal, found))

    def only(self, wanted: Callable[[str, str], bool]) -> Layout:
        """The same with no other signals than those of which *wanted*, given the message's name and
        theirs, is true, and the multiplexers.
        """
        needed = {signal.name for signal, _ in self._multiplexers}
        kept = [
            each for each in self.signals if each.name in needed or wanted(self.name, each.name)
        ]
        return Layout(
            self.name,
            self.identifier,
            self.length,
            kept,
            extended=self.extended,
            j1939=self.j1939,
            cycle_s=self.cycle_s,
        )

    def document(self) -> dict[str, Any]:
        """What JSON can carry, for `from_document`."""
        return {
            "name": self.name,
            "identifier": self.identifier,
            "length": self.length,
            "signals": [asdict(signal) | {"cases": [*signal.cases]} for signal in self.signals],
            "extended": self.extended,
            "j1939": self.j1939,
            "cycle_s": self.cycle_s,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Layout:
        """What `document` gave, once it has been JSON."""
        return cls(**{**document, "signals": [_signal(each) for each in document["signals"]]})


def _signal(document: Mapping[str, Any]) -> Signal:
    words = {int(number): word for number, word in document["words"].items()}
    return Signal(**{**document, "words": words, "cases": frozenset(document["cases"])})


def _is_there(signal: Signal, found: Mapping[str, int]) -> bool:
    return signal.multiplexer is None or found.get(signal.multiplexer, OTHER) in signal.cases


def _multiplexers(signals: Sequence[Signal]) -> Iterator[tuple[Signal, frozenset[int]]]:
    """Each signal that others depend on, outer ones first, and its values that they name."""
    known: dict[str, frozenset[int]] = {}
    for signal in signals:
        if signal.multiplexer is not None:
            before = known.get(signal.multiplexer, frozenset())
            known[signal.multiplexer] = before | signal.cases
    waiting = [signal for signal in signals if signal.name in known]
    placed = {signal.name for signal in waiting}
    while waiting:
        ready = [signal for signal in waiting if signal.multiplexer not in placed]
        if not ready:  # they depend on each other in a ring: none of them is ever there
            return
        yield from ((signal, known[signal.name]) for signal in ready)
        placed -= {signal.name for signal in ready}
        waiting = [signal for signal in waiting if signal.name in placed]
