"""The transport protocol of SAE J1939-21 section 5.10: messages of 9 to 1,785 bytes, in
packets of seven.

Pure: time comes in with each frame, and what is to be sent waits in `outgoing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nexus_plugins.j1939.identifier import GLOBAL, TP_CM, TP_DT, Identifier, Message

RTS: Final = 16
CTS: Final = 17
END_OF_MESSAGE: Final = 19
BAM: Final = 32
ABORT: Final = 255
"""Control bytes, section 5.10.3."""

BUSY: Final = 1
NO_RESOURCES: Final = 2
TIMED_OUT: Final = 3
"""Reasons of an abort, section 5.10.3."""

T1_S: Final = 0.75
"""From one packet to the next."""
T2_S: Final = 1.25
"""From our clearance to the first packet."""
T3_S: Final = 1.25
"""How long a sender waits for a clearance; who overhears must be as patient."""

MIN_BYTES: Final = 9
MAX_BYTES: Final = 1785
PACKET_BYTES: Final = 7
WINDOW: Final = 16
"""Packets that we clear at a time."""
RETRIES: Final = 2
"""How often we ask for missing packets again."""
MAX_SESSIONS: Final = 64

Outgoing = tuple[Identifier, bytes]
_Pair = tuple[int, int]


@dataclass(slots=True)
class _Session:
    """One message on its way. ours: we are who clears it."""

    pgn: int
    size: int
    ours: bool
    window: int
    deadline: float
    packets: dict[int, bytes] = field(default_factory=dict)
    cleared: int = 0
    """The last packet that we have cleared."""
    retries: int = 0

    @property
    def count(self) -> int:
        return -(-self.size // PACKET_BYTES)

    @property
    def missing(self) -> int:
        """The first packet that is not here."""
        return next(n for n in range(1, self.count + 2) if n not in self.packets)

    def whole(self) -> bytes:
        return b"".join(self.packets[n] for n in range(1, self.count + 1))[: self.size]


class Reassembly:
    """Messages of several frames, from whomever to whomever.

    wanted: groups that are worth a session. A broadcast lives by its packets' order, as nobody can
    ask for one again: with one lost or out of place it is dropped. Of a connection between others
    packets are kept as they come, since its receiver may ask for some again; a packet that comes
    twice with other bytes ends it. A connection to `address` is cleared and acknowledged.
    """

    def __init__(self, wanted: frozenset[int]) -> None:
        self.address: int | None = None
        """Ours; None while we only listen."""
        self.outgoing: list[Outgoing] = []
        self.interrupted = 0
        """Messages that did not come whole: a packet was lost, or the sender fell silent."""
        self.aborted = 0
        self.malformed = 0
        """Frames of the protocol that say what cannot be."""
        self.refused = 0
        """Messages that there was no room for."""
        self._wanted = wanted
        self._sessions: dict[_Pair, _Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def receiving(self, source: int, pgn: int) -> bool:
        """Whether a message of that group is on its way, to us or to all."""
        return any(
            session.pgn == pgn and pair[0] == source and pair[1] in {GLOBAL, self.address}
            for pair, session in self._sessions.items()
        )

    def take(self, now: float, identifier: Identifier, data: bytes) -> Message | None:
        """Take a frame of TP.CM or TP.DT; the message that it completes, if any."""
        self.expire(now)
        if len(data) != 8:
            self.malformed += 1
            return None
        if identifier.pgn == TP_DT:
            return self._packet(now, identifier, data)
        self._control(now, identifier, data)
        return None

    def expire(self, now: float) -> None:
        """Give up, or ask again for, what is overdue."""
        for pair, session in list(self._sessions.items()):
            if now < session.deadline:
                continue
            if session.ours and session.retries < RETRIES:
                session.retries += 1
                self._clear(now, pair, session)
                continue
            self._drop(pair)
            if session.ours:
                self._abort(pair, session.pgn, TIMED_OUT)

    def reset(self) -> None:
        """Frames were lost, nobody knows whose: nothing that is on its way can be trusted."""
        for pair in list(self._sessions):
            self._drop(pair)

    # -- connection management -------------------------------------------------------------------

    def _control(self, now: float, identifier: Identifier, data: bytes) -> None:
        kind, pgn = data[0], int.from_bytes(data[5:8], "little")
        here = (identifier.source, identifier.destination)
        back = (identifier.destination, identifier.source)
        if kind in {BAM, RTS}:
            self._open(now, here, data, pgn)
        elif kind == CTS:
            self._cleared_by_another(now, back)
        elif kind == END_OF_MESSAGE:
            if back in self._sessions:
                self._drop(back)
        elif kind == ABORT:
            self._aborted(here, pgn)
            self._aborted(back, pgn)
        else:
            self.malformed += 1

    def _open(self, now: float, pair: _Pair, data: bytes, pgn: int) -> None:
        """A sender has but one message on its way to each receiver: the one before is over."""
        if pair in self._sessions:
            self._drop(pair)
        source, destination = pair
        to_us = self.address is not None and destination == self.address
        size, packets = int.from_bytes(data[1:3], "little"), data[3]
        fits = MIN_BYTES <= size <= MAX_BYTES and packets == -(-size // PACKET_BYTES)
        if not fits or (data[0] == BAM) is not (destination == GLOBAL) or source >= 0xFE:
            self.malformed += 1
            if to_us:
                self._abort(pair, pgn, NO_RESOURCES)
            return
        if pgn not in self._wanted or len(self._sessions) >= MAX_SESSIONS:
            self.refused += pgn in self._wanted
            if to_us:
                self._abort(pair, pgn, NO_RESOURCES)
            return
        window = min(WINDOW, data[4] or WINDOW)
        session = _Session(pgn, size, to_us, window, now + (T1_S if data[0] == BAM else T3_S))
        self._sessions[pair] = session
        if to_us:
            self._clear(now, pair, session)

    def _cleared_by_another(self, now: float, pair: _Pair) -> None:
        session = self._sessions.get(pair)
        if session is not None and not session.ours:
            session.deadline = now + T3_S

    def _aborted(self, pair: _Pair, pgn: int) -> None:
        session = self._sessions.get(pair)
        if session is not None and session.pgn == pgn:
            del self._sessions[pair]
            self.aborted += 1

    def _drop(self, pair: _Pair) -> None:
        del self._sessions[pair]
        self.interrupted += 1

    # -- packets ---------------------------------------------------------------------------------

    def _packet(self, now: float, identifier: Identifier, data: bytes) -> Message | None:
        pair = (identifier.source, identifier.destination)
        session = self._sessions.get(pair)
        if session is None:
            return None
        number, payload = data[0], data[1:]
        if session.packets.get(number, payload) != payload or not 1 <= number <= session.count:
            self._end(pair, session)
            return None
        if number not in session.packets:
            if pair[1] == GLOBAL and number != session.missing:
                self._end(pair, session)
                return None
            session.packets[number] = payload
        session.deadline = now + (T1_S if session.ours or pair[1] == GLOBAL else T3_S)
        if len(session.packets) == session.count:
            return self._complete(pair, session)
        if session.ours and number == session.cleared:
            self._next_window(now, pair, session)
        return None

    def _next_window(self, now: float, pair: _Pair, session: _Session) -> None:
        """The last cleared packet is here: clear those that follow, or those that are missing."""
        if session.missing <= session.cleared:
            if session.retries >= RETRIES:
                self._end(pair, session)
                return
            session.retries += 1
        self._clear(now, pair, session)

    def _complete(self, pair: _Pair, session: _Session) -> Message:
        del self._sessions[pair]
        if session.ours:
            size = session.size.to_bytes(2, "little")
            self._control_frame(
                pair, bytes([END_OF_MESSAGE, *size, session.count, 0xFF]), session.pgn
            )
        return Message(session.pgn, *pair, session.whole())

    def _end(self, pair: _Pair, session: _Session) -> None:
        self._drop(pair)
        if session.ours:
            self._abort(pair, session.pgn, NO_RESOURCES)

    # -- what we say -----------------------------------------------------------------------------

    def _clear(self, now: float, pair: _Pair, session: _Session) -> None:
        first = session.missing
        session.cleared = min(first + session.window - 1, session.count)
        session.deadline = now + T2_S
        count = session.cleared - first + 1
        self._control_frame(pair, bytes([CTS, count, first, 0xFF, 0xFF]), session.pgn)

    def _abort(self, pair: _Pair, pgn: int, reason: int) -> None:
        self._control_frame(pair, bytes([ABORT, reason, 0xFF, 0xFF, 0xFF]), pgn)

    def _control_frame(self, pair: _Pair, head: bytes, pgn: int) -> None:
        """To the sender of *pair*, from its receiver, which is us."""
        source, destination = pair
        identifier = Identifier(TP_CM, source=destination, destination=source, priority=7)
        self.outgoing.append((identifier, head + pgn.to_bytes(3, "little")))
