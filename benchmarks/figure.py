"""One measured figure, and the load that the measurements share."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SEED: Final = 20261123
EVENT_BYTES: Final = 300
_TEXT_BYTES: Final = 10_000
_TEXTS: Final = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. value: None where it could not be measured; compared_with says why.

    ok: whether it keeps its budget; None where there is no budget for it.
    """

    name: str
    value: float | None
    unit: str
    budget: str | None = None
    ok: bool | None = None
    compared_with: str | None = None


def peak_memory(process: int | str) -> int:
    """The most bytes that a process ever had resident (proc(5), VmHWM).

    getrusage's ru_maxrss is no use for it: it begins with what the parent had at the fork.
    """
    for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{process}/status has no VmHWM")


def readings(count: int) -> list[tuple[str, Any]]:
    """Events of about 300 bytes as they go up, as alike and as different as live values are."""
    source = random.Random(SEED)  # noqa: S311 - a load, no secret
    names = ["engine_speed", "vehicle_speed", "coolant_temperature", "engine_load", "fuel_level"]
    reference = "v-" + "".join(source.choices(string.hexdigits.lower(), k=20))
    return [
        (
            "telemetry.pid",
            {
                "vehicle_ref": reference,
                "ecu": "7E8",
                "pid": source.randrange(4, 0x60),
                "name": source.choice(names),
                "value": round(source.uniform(0, 6000), 2),
                "unit": "rpm",
                "quality": "ok",
            },
        )
        for _ in range(count)
    ]


def texts(size: int) -> Iterator[list[tuple[str, Any]]]:
    """Events that take about *size* bytes once compressed: random bytes as base64, 1 MB at once."""
    source = random.Random(SEED)  # noqa: S311 - a load, no secret
    for _ in range(size // _TEXTS // _TEXT_BYTES):
        yield [
            ("bench.text", {"text": base64.b64encode(source.randbytes(_TEXT_BYTES)).decode()})
            for _ in range(_TEXTS)
        ]
