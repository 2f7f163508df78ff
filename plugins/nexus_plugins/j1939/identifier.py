"""The 29-bit identifier of a frame, and the parameter groups that this plugin knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

GLOBAL: Final = 0xFF
"""Everybody (SAE J1939-21 section 5.2)."""
NULL: Final = 0xFE
"""The address of who has none (SAE J1939-81 section 4)."""

REQUEST: Final = 0x00EA00
ACKNOWLEDGEMENT: Final = 0x00E800
TP_CM: Final = 0x00EC00
TP_DT: Final = 0x00EB00
"""SAE J1939-21 sections 5.4.2, 5.4.4 and 5.10."""
ADDRESS_CLAIMED: Final = 0x00EE00
"""SAE J1939-81 section 4.2."""
DM1: Final = 0x00FECA
DM2: Final = 0x00FECB
DM6: Final = 0x00FECF
DM28: Final = 0x00FD80
"""SAE J1939-73 sections 5.7.1, 5.7.2, 5.7.6 and 5.7.28: codes that are active, previously active,
pending and permanent."""
COMPONENT_ID: Final = 0x00FEEB
SOFTWARE_ID: Final = 0x00FEDA
VIN: Final = 0x00FEEC
"""SAE J1939-71, PGN 65259, 65242 and 65260."""

TOLD: Final = frozenset({DM1, DM2, DM6, DM28, COMPONENT_ID, SOFTWARE_ID, VIN})
"""What control units tell, in one frame or by the transport protocol."""
WANTED: Final = TOLD | {REQUEST, ACKNOWLEDGEMENT, TP_CM, TP_DT, ADDRESS_CLAIMED}
"""All that is looked at."""

_PDU2: Final = 240
"""From this PDU format on there is no destination in the identifier (SAE J1939-21 section 5.2)."""


def pgn_of(can_id: int) -> int:
    """The parameter group of a 29-bit identifier; it has no destination in it."""
    pgn = can_id >> 8 & 0x3FFFF
    return pgn if pgn >> 8 & 0xFF >= _PDU2 else pgn & 0x3FF00


@dataclass(frozen=True, slots=True)
class Identifier:
    """pgn: 18 bits with both data pages. destination: `GLOBAL` where the group has none."""

    pgn: int
    source: int
    destination: int = GLOBAL
    priority: int = 6

    @classmethod
    def read(cls, can_id: int) -> Self:
        pgn = pgn_of(can_id)
        specific = can_id >> 8 & 0xFF
        destination = specific if pgn >> 8 & 0xFF < _PDU2 else GLOBAL
        return cls(pgn, can_id & 0xFF, destination, can_id >> 26 & 7)

    def can_id(self) -> int:
        """The 29 bits."""
        has_destination = self.pgn >> 8 & 0xFF < _PDU2
        specific = self.destination << 8 if has_destination else 0
        return self.priority << 26 | self.pgn << 8 | specific | self.source


@dataclass(frozen=True, slots=True)
class Message:
    """One parameter group as it was sent, in one frame or several. No `repr` has its data: that
    may be a VIN.
    """

    pgn: int
    source: int
    destination: int
    data: bytes

    def __repr__(self) -> str:
        return f"Message({self.pgn:04X} of {self.source:02X}, {len(self.data)} bytes)"


def ecu_of(address: int) -> str:
    """How events name a control unit: `J1939 0B`."""
    return f"J1939 {address:02X}"
