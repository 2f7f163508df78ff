"""The readings that an event holds, and what each of them is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from nexus_agent.protocol import Quality

_QUALITIES: Final = {quality.value: quality for quality in Quality}


class Reading(NamedTuple):
    """One value of one name. `value` is None unless the quality is ok: nothing is invented."""

    name: str
    ecu: str | None
    unit: str | None
    value: float | str | bool | None
    quality: Quality


def readings(line: str) -> Iterator[Reading]:
    """What the event in *line* tells: one reading by its `name`, or a map of many by theirs.

    An event without readings gives nothing; a reading without a quality that is one is malformed.
    """
    try:
        data = orjson.loads(line)["data"]
    except orjson.JSONDecodeError:
        # A number beyond every double: the line stays as it came, and tells nothing.
        return
    if not isinstance(data, dict):
        return
    name = data.get("name")
    if isinstance(name, str) and ("quality" in data or "value" in data):
        yield _reading(name, _text(data.get("ecu")), data)
        return
    for name, value in data.items():
        if isinstance(value, dict) and "quality" in value:
            yield _reading(name, None, value)


def _reading(name: str, ecu: str | None, data: dict[str, Any]) -> Reading:
    unit, value, said = _text(data.get("unit")), data.get("value"), data.get("quality")
    quality = _QUALITIES.get(said) if isinstance(said, str) else None
    if quality is None or not isinstance(value, float | int | str | None):
        return Reading(name, ecu, unit, None, Quality.MALFORMED)
    return Reading(name, ecu, unit, value if quality is Quality.OK else None, quality)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
