"""Reads a DBC file with cantools; see `loading` for where that is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nexus_plugins.can_signals.layout import Layout, Signal

if TYPE_CHECKING:
    from cantools.database.can import Message
    from cantools.database.can import Signal as CanSignal

LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a file; the largest that makers have are a tenth of it."""
_NAME: Final = 200
_UNIT: Final = 20
_FLOATS: Final = (16, 32, 64)


class DatabaseError(Exception):
    """The file cannot be used; the message says why."""


def read(path: Path, *, j1939: bool) -> Iterator[Layout]:
    """Its messages. Raises DatabaseError, at once or under way."""
    import cantools

    text = _text(path)
    # What a wrong file makes cantools raise beside its own errors depends on where it is wrong.
    try:
        database = cantools.database.load_string(text, "dbc", strict=False)
    except (
        *(cantools.Error, ValueError, LookupError, TypeError),
        *(AttributeError, ArithmeticError, RecursionError),
    ) as error:
        raise DatabaseError(f"{error}" or type(error).__name__) from error
    if not isinstance(database, cantools.database.can.Database):
        raise DatabaseError("it is no database of CAN messages")
    if not database.messages:
        raise DatabaseError("it has no message")
    for message in database.messages:
        yield _layout(message, j1939=j1939)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:
            raise DatabaseError(f"it is larger than {LONGEST // 1024 // 1024} MB")
        content = path.read_bytes()
    except OSError as error:
        raise DatabaseError(f"{error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")  # as Vector's own editor writes them


def _layout(message: Message, *, j1939: bool) -> Layout:
    found = (_signal(signal, message.length) for signal in message.signals)
    return Layout(
        message.name[:_NAME],
        message.frame_id,
        message.length,
        [signal for signal in found if signal is not None],
        extended=message.is_extended_frame,
        j1939=message.is_extended_frame and (j1939 or message.protocol == "j1939"),
        cycle_s=(message.cycle_time or 0) / 1000,
    )


def _signal(signal: CanSignal, length: int) -> Signal | None:
    """None where it does not lie within its message, or cannot be told."""
    big_endian = signal.byte_order == "big_endian"
    # A DBC counts bits from the lowest of each byte, and starts a big-endian signal at its highest.
    highest = 8 * (signal.start // 8) + 7 - signal.start % 8
    shift = 8 * length - highest - signal.length if big_endian else signal.start
    if shift < 0 or shift + signal.length > 8 * length or signal.length < 1:
        return None
    if len(signal.name) > _NAME or (signal.is_float and signal.length not in _FLOATS):
        return None
    choices: Mapping[int, object] = signal.choices or {}
    return Signal(
        name=signal.name,
        unit=(signal.unit or "1")[:_UNIT],
        shift=shift,
        length=signal.length,
        big_endian=big_endian,
        signed=signal.is_signed,
        is_float=signal.is_float,
        scale=float(signal.scale),
        offset=float(signal.offset),
        words={number: str(word) for number, word in choices.items() if str(word)},
        multiplexer=signal.multiplexer_signal,
        cases=frozenset(signal.multiplexer_ids or ()),
    )
