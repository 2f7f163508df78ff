"""Finds the message that a frame carries by its identifier. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from nexus_plugins.can_signals.layout import Layout

Found = tuple[Layout, int | None]
"""A message, and on J1939 the address of who sent it."""


class Directory:
    """The messages of a channel; of several with one identifier the first counts.

    J1939 messages are found by their PGN: priority, source address and, with PDU1, the destination
    of the frame do not matter (SAE J1939-21 section 5.2). Where there are several with one PGN, the
    one that names the frame's source address is taken.
    """

    def __init__(self, layouts: Iterable[Layout]) -> None:
        self._exact: dict[tuple[int, bool], Layout] = {}
        self._by_sender: dict[tuple[int, int], Layout] = {}
        self._by_pgn: dict[int, Layout] = {}
        self.hidden = 0
        """Messages that another one with the same identifier keeps from being found."""
        for layout in layouts:
            self._add(layout)

    def _add(self, layout: Layout) -> None:
        if not layout.j1939:
            kept = self._exact.setdefault((layout.identifier, layout.extended), layout)
        else:
            pgn = pgn_of(layout.identifier)
            self._by_pgn.setdefault(pgn, layout)
            kept = self._by_sender.setdefault((pgn, layout.identifier & 0xFF), layout)
        self.hidden += kept is not layout

    def __len__(self) -> int:
        return len(self._exact) + len(self._by_sender)

    def find(self, identifier: int, *, extended: bool) -> Found | None:
        """Whose frame this is, or None."""
        layout = self._exact.get((identifier, extended))
        if layout is not None:
            return layout, None
        if not extended or not self._by_pgn:
            return None
        pgn, sender = pgn_of(identifier), identifier & 0xFF
        layout = self._by_sender.get((pgn, sender)) or self._by_pgn.get(pgn)
        return None if layout is None else (layout, sender)


def pgn_of(identifier: int) -> int:
    """The parameter group of a 29-bit identifier (SAE J1939-21 section 5.1.2).

    18 bits: both page bits, the PDU format, and from format 240 on the PDU specific byte; below
    that it is a destination and no part of the group.
    """
    pgn = identifier >> 8 & 0x3FFFF
    return pgn if pgn >> 8 & 0xFF >= 240 else pgn & 0x3FF00
