"""The three cars of the demo, and what is known of them from their scenarios alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent / "scenarios"
_RPM: Final = re.compile(r"41 0C ([0-9A-F]{2}) ([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class Vehicle:
    """One car. The scenario's name is `<name>.scenario.json`; the VIN stands in its 0902 reply."""

    name: str
    vin: str

    @property
    def scenario(self) -> Path:
        return _FOLDER / f"{self.name}.scenario.json"

    def codes(self, kind: str) -> list[str]:
        """The codes of *kind* (stored, pending, permanent) before anything is cleared."""
        codes: list[str] = self._document()["expected_scan_summary"][f"{kind}_codes"]
        return codes

    def speeds(self) -> set[float]:
        """Every engine speed that the scenario has, in rpm (SAE J1979: a quarter rpm a bit)."""
        text = " ".join(
            chunk
            for command in self._document()["commands"]
            if command["request"] == "010C"
            for chunk in command["response_chunks"]
        )
        return {int(high + low, 16) / 4 for high, low in _RPM.findall(text)}

    def _document(self) -> Any:
        return json.loads(self.scenario.read_text("utf-8"))


MISFIRE: Final = Vehicle("misfire", "WNXDEM1Z0TA000301")
CLEAN: Final = Vehicle("clean", "1NXDEM2Z6TA000002")
AWKWARD: Final = Vehicle("awkward", "JNXDEM3Z0TA000003")
ALL: Final = (MISFIRE, CLEAN, AWKWARD)
