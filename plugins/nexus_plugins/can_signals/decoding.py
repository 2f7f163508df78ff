"""What a signal's bits say: a value, a word, or that there is none. No I/O."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from nexus_agent.plugin import Quality
from nexus_plugins.can_signals.layout import SHORT, Case, Layout, Signal

_FLOATS: Final = {16: struct.Struct(">e"), 32: struct.Struct(">f"), 64: struct.Struct(">d")}
_EXACT_BITS: Final = 53
"""Larger whole numbers are not all exact as JSON's numbers."""

_SLOT_LENGTHS: Final = (8, 16, 24, 32)
_VALID: Final = 0xFA
_SPECIFIC: Final = 0xFB
_ERROR: Final = 0xFE
_NOT_AVAILABLE: Final = 0xFF
"""First byte of a parameter (SAE J1939-71 section 5.1.4, table 1): up to FA it is a value, FB says
something that the parameter's own description tells, FC and FD are reserved."""
_SAYS_NOT_AVAILABLE: Final = re.compile(
    r"avail|n/?a\b|\bsna\b|no.?action|don'?t.?care", re.IGNORECASE
)
_SAYS_ERROR: Final = re.compile(r"err|fault|fail|invalid", re.IGNORECASE)


class Reading(NamedTuple):
    """One value of one signal, or why there is none."""

    value: float | str | None
    quality: Quality = Quality.OK
    detail: str | None = None


def decoded(layout: Layout, case: Case, data: bytes) -> Iterator[tuple[Signal, Reading]]:
    """What a frame of the message says, signal by signal.

    case: what `Layout.case_of` says of *data*.
    """
    if case == SHORT:
        detail = f"the frame has {len(data)} bytes, the message {layout.length}"
        for signal in layout.present(case):
            yield signal, Reading(None, Quality.MALFORMED, detail)
        return
    numbers = layout.numbers(data)
    for signal in layout.present(case):
        bits = signal.bits(numbers)
        told = indicated(signal, bits) if layout.j1939 else None
        yield signal, value_of(signal, bits) if told is None else told


def value_of(signal: Signal, bits: int) -> Reading:
    """The value in its unit, or its word where the database has one for it."""
    raw = _raw(signal, bits)
    if (word := _word(signal, raw)) is not None:
        return Reading(word)
    if signal.length > _EXACT_BITS and not signal.is_float and signal.scale == 1:
        return Reading(str(raw + int(signal.offset)))
    value = raw * signal.scale + signal.offset
    if not math.isfinite(value):
        return Reading(None, Quality.MALFORMED, "not a number")
    return Reading(float(value))


def _raw(signal: Signal, bits: int) -> float:
    if signal.is_float:
        raw: float = _FLOATS[signal.length].unpack(bits.to_bytes(signal.length // 8, "big"))[0]
        return raw
    return bits - (1 << signal.length) if signal.signed and bits >> signal.length - 1 else bits


def _word(signal: Signal, raw: float) -> str | None:
    return signal.words.get(int(raw)) if signal.words and raw % 1 == 0 else None


def indicated(signal: Signal, bits: int) -> Reading | None:
    """What bits say on J1939 that are no value; None where they are one.

    SAE J1939-71 section 5.1.4: parameters of whole bytes have the ranges above; of others all ones
    are "not available", and one less is "error", if they have two bits at least.
    """
    if signal.length in _SLOT_LENGTHS and not signal.is_float:
        return _of_slot(signal, bits)
    ones = (1 << signal.length) - 1
    if signal.length < 2 or bits < ones - 1:
        return None
    word = _word(signal, _raw(signal, bits))
    if word is not None and signal.length < 8:
        return _as_named(word)
    if bits == ones:
        return Reading(None, Quality.ABSENT, "not available")
    if signal.length < 32:
        return Reading(None, Quality.MALFORMED, "error indicator")
    return None


def _of_slot(signal: Signal, bits: int) -> Reading | None:
    first = bits >> signal.length - 8
    if first <= _VALID:
        return None
    word = _word(signal, _raw(signal, bits))
    if first == _NOT_AVAILABLE:
        return Reading(None, Quality.ABSENT, "not available")
    if first == _ERROR:
        return Reading(None, Quality.MALFORMED, word or "error indicator")
    if word is not None:
        return Reading(word)
    detail = "parameter specific indicator" if first == _SPECIFIC else "reserved"
    return Reading(None, Quality.MALFORMED, f"{detail} ({first:02X})")


def _as_named(word: str) -> Reading | None:
    """Some states of a few bits use up all of them: what the database calls them decides."""
    if _SAYS_NOT_AVAILABLE.search(word):
        return Reading(None, Quality.ABSENT, "not available")
    if _SAYS_ERROR.search(word):
        return Reading(None, Quality.MALFORMED, word)
    return Reading(word)
