"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check. text: what was seen; advice: what to do where it is not ok."""

    check: str
    ok: bool
    text: str
    advice: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"check": self.check, "ok": self.ok, "text": self.text, "advice": self.advice}


def passed(check: str, text: str) -> Finding:
    return Finding(check, ok=True, text=text)


def failed(check: str, text: str, advice: str) -> Finding:
    return Finding(check, ok=False, text=text, advice=advice)
