"""What stays in the place of an event that was erased: its line, with this for data."""

from __future__ import annotations

from typing import Any, Final

MARK: Final = {"erased": "vehicle"}
"""The whole of `data`. No type of the catalogue has such data."""


def is_erased(data: Any) -> bool:
    """Whether *data* stands for what was erased."""
    return bool(data == MARK)
