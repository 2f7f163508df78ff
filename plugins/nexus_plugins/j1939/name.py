"""NAMEs (SAE J1939-81 section 4.1): who has which address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from nexus_plugins.j1939.identifier import NULL

_FUNCTIONS: Final = {
    0: "engine",
    1: "auxiliary power unit",
    2: "electric propulsion",
    3: "transmission",
    4: "battery pack monitor",
    5: "shift console",
    6: "power take-off",
    7: "axle steering",
    8: "axle drive",
    9: "brakes",
    10: "brakes, steer axle",
    11: "brakes, drive axle",
    12: "retarder, engine",
    13: "retarder, driveline",
    14: "cruise control",
    15: "fuel system",
    16: "steering",
    17: "suspension, steer axle",
    18: "suspension, drive axle",
    19: "instrument cluster",
    20: "trip recorder",
    21: "cab climate control",
    23: "vehicle navigation",
    24: "vehicle security",
    25: "network interconnect",
    26: "body controller",
    28: "off-vehicle gateway",
    30: "management computer",
    32: "headway controller",
    37: "cab controller",
    38: "tire pressure control",
    129: "diagnostic tool",
}
"""Functions that mean the same in every industry group (SAE J1939, appendix B, table B11), and the
diagnostic tool of the group for all."""
_SHARED_FUNCTIONS: Final = 128
"""From this one on a function's meaning depends on industry group and vehicle system."""


@dataclass(frozen=True, slots=True)
class Name:
    """The 64 bits by which a control unit is known, whatever its address. The lower one wins an
    address that two claim.
    """

    value: int

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """That of an address claim; None where it is not 8 bytes."""
        return cls(int.from_bytes(data, "little")) if len(data) == 8 else None

    def __str__(self) -> str:
        return f"{self.value:016X}"

    def data(self) -> bytes:
        """As a claim has it."""
        return self.value.to_bytes(8, "little")

    @property
    def identity(self) -> int:
        return self.value & 0x1FFFFF

    @property
    def manufacturer(self) -> int:
        return self.value >> 21 & 0x7FF

    @property
    def ecu_instance(self) -> int:
        return self.value >> 32 & 7

    @property
    def function_instance(self) -> int:
        return self.value >> 35 & 0x1F

    @property
    def function(self) -> int:
        return self.value >> 40 & 0xFF

    @property
    def vehicle_system(self) -> int:
        return self.value >> 49 & 0x7F

    @property
    def vehicle_system_instance(self) -> int:
        return self.value >> 56 & 0xF

    @property
    def industry_group(self) -> int:
        return self.value >> 60 & 7

    @property
    def arbitrary_address(self) -> bool:
        """Whether it may take another address than the one it prefers."""
        return bool(self.value >> 63)

    def words(self) -> str | None:
        """What it is, for people; None where that is not known here."""
        shared = self.function < _SHARED_FUNCTIONS or not self.industry_group
        word = _FUNCTIONS.get(self.function) if shared else None
        if word is None or not self.function_instance:
            return word
        return f"{word} #{self.function_instance + 1}"


class Addresses:
    """Who has claimed which address."""

    def __init__(self) -> None:
        self._names: dict[int, Name] = {}

    def claim(self, address: int, name: Name) -> None:
        """Note a claim. Who had the address before has lost it; `NULL` means to have none."""
        for other, held in list(self._names.items()):
            if held == name or other == address:
                del self._names[other]
        if address < NULL:
            self._names[address] = name

    def clear(self) -> None:
        """Forget everybody."""
        self._names.clear()

    def get(self, address: int) -> Name | None:
        return self._names.get(address)

    def known(self) -> frozenset[int]:
        """Addresses that are claimed."""
        return frozenset(self._names)
