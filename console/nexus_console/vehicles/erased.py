"""What stays in the place of an event that was erased: its line, with this for data."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

MARK: Final = {"erased": "vehicle"}
"""The whole of `data`. No type of the catalogue has such data."""
_MARK_TEXT: Final = orjson.dumps(MARK).decode()


def is_erased(data: Any) -> bool:
    """Whether *data* stands for what was erased."""
    return bool(data == MARK)


def is_erased_line(line: str) -> bool:
    """Whether the event in *line* was erased."""
    return _MARK_TEXT in line and is_erased(json.loads(line)["data"])


def erased(line: str) -> str:
    """The event in *line* without its data: when it was recorded, by whom, and of which type."""
    # orjson refuses numbers that no double can hold, and a box may have sent them.
    return orjson.dumps(json.loads(line) | {"data": MARK}).decode()
