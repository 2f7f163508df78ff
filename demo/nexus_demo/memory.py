"""What a car remembers of its faults, in a file: the story writes it, and a clear empties it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CLEAR: Final = "04"
SERVICES: Final = {"03": "stored", "07": "pending", "0A": "permanent"}
"""SAE J1979: the service that reads each kind of trouble codes."""
STATUS: Final = "0101"
"""SAE J1979 service 01 PID 01: the warning lamp and the number of stored codes."""

_MOST: Final = 2
"""Codes that fit a single CAN frame beside the service and their number (ISO 15765-2)."""


class Memory:
    """The trouble codes of one car with one control unit, 7E8, on an 11-bit CAN bus."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def remember(
        self,
        *,
        stored: Sequence[str] = (),
        pending: Sequence[str] = (),
        permanent: Sequence[str] = (),
    ) -> None:
        """Replace everything by these codes, such as P0301; two of a kind at most."""
        codes = {"stored": [*stored], "pending": [*pending], "permanent": [*permanent]}
        if any(len(some) > _MOST for some in codes.values()):
            raise ValueError(f"at most {_MOST} codes of a kind: {codes}")
        whole = self._file.with_suffix(".new")
        whole.write_text(json.dumps(codes), "utf-8")
        whole.replace(self._file)

    def codes(self, kind: str) -> list[str]:
        """The codes that are stored, pending or permanent now."""
        codes: list[str] = json.loads(self._file.read_text("utf-8"))[kind]
        return codes

    def answer(self, request: str) -> str | None:
        """The control unit's frame for *request*, or None for one that is about something else."""
        if request == CLEAR:
            # A permanent code goes only when the car has found itself that the fault is gone.
            self.remember(permanent=self.codes("permanent"))
            return _frame(0x44)
        if request == STATUS:
            count = len(self.codes("stored"))
            return _frame(0x41, 0x01, count | (0x80 if count else 0), 0x07, 0x65, 0x04)
        kind = SERVICES.get(request)
        if kind is None:
            return None
        codes = self.codes(kind)
        packed = [byte for code in codes for byte in _pack(code)]
        return _frame(int(request, 16) + 0x40, len(codes), *packed)


def _pack(code: str) -> tuple[int, int]:
    """A code in two bytes (SAE J2012): two bits of system, two of digit, three hex digits."""
    high = "PCBU".index(code[0]) << 6 | int(code[1]) << 4 | int(code[2], 16)
    return high, int(code[3:], 16)


def _frame(*data: int) -> str:
    return " ".join(["7E8", f"{len(data):02X}", *(f"{byte:02X}" for byte in data)])
