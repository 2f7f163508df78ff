"""From two readings to the data of a `host.metrics` event."""

from __future__ import annotations

import math
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.host.reading import Cpu, Reading, Space, Traffic

Metrics = dict[str, dict[str, Any]]
"""name → {"value": number, truth or null, "unit": text, "quality": text}"""

COLDEST: Final = -60.0
HOTTEST: Final = 200.0
"""°C; a sensor beyond these is broken, not the machine."""

_MB: Final = 1_000_000


def metrics(before: Reading, now: Reading) -> Metrics:
    """Figures of *now*; rates and CPU load are those since *before*."""
    seconds = now.at - before.at
    load = now.load if not isinstance(now.load, Quality) else (now.load,) * 3
    return {
        "cpu": _entry(_cpu(before.cpu, now.cpu), "%", 1),
        "load_1m": _entry(load[0], "1", 2),
        "load_5m": _entry(load[1], "1", 2),
        "load_15m": _entry(load[2], "1", 2),
        **_space("memory", now.memory),
        **_space("swap", now.swap),
        **{key: entry for name, disk in now.disks.items() for key, entry in _disk(name, disk)},
        **_rates("disk", ("read", "write"), before.disk_io, now.disk_io, seconds),
        **_network(before, now, seconds),
        **_temperatures(now.temperatures),
        "clock_synchronised": _entry(now.clock_synchronised, "1"),
        "uptime": _entry(now.at, "s", 0),
        "boot_time": _entry(now.boot_time, "s", 0),
    }


def _entry(value: float | Quality, unit: str, digits: int | None = None) -> dict[str, Any]:
    if isinstance(value, Quality):
        return {"value": None, "unit": unit, "quality": value}
    if not math.isfinite(value):
        return {"value": None, "unit": unit, "quality": Quality.MALFORMED}
    if digits is not None:
        value = round(value, digits) if digits else round(value)
    return {"value": value, "unit": unit, "quality": Quality.OK}


def _cpu(before: Cpu | Quality, now: Cpu | Quality) -> float | Quality:
    if isinstance(now, Quality):
        return now
    if isinstance(before, Quality) or now.total <= before.total:
        return Quality.ABSENT
    share = (now.busy - before.busy) / (now.total - before.total)
    # The kernel's idle and iowait counters may step back a little, proc(5).
    return min(max(share, 0.0), 1.0) * 100


def _space(name: str, space: Space | Quality) -> Metrics:
    used, free, percent = space if not isinstance(space, Quality) else (space,) * 3
    return {
        name: _entry(percent, "%", 1),
        f"{name}_used": _megabytes(used),
        f"{name}_free": _megabytes(free),
    }


def _disk(name: str, space: Space | Quality) -> list[tuple[str, dict[str, Any]]]:
    return list(_space(f"disk_{name}", space).items())


def _megabytes(count: int | Quality) -> dict[str, Any]:
    return _entry(count if isinstance(count, Quality) else count / _MB, "MB", 0)


def _rates(
    name: str,
    ways: tuple[str, str],
    before: Traffic | Quality,
    now: Traffic | Quality,
    seconds: float,
) -> Metrics:
    pairs = zip(ways, _each(before), _each(now), strict=True)
    return {
        f"{name}_{way}_rate": _entry(_rate(old, new, seconds), "B/s", 0) for way, old, new in pairs
    }


def _each(traffic: Traffic | Quality) -> tuple[int | Quality, int | Quality]:
    return (traffic, traffic) if isinstance(traffic, Quality) else (traffic[0], traffic[1])


def _rate(before: int | Quality, now: int | Quality, seconds: float) -> float | Quality:
    if isinstance(now, Quality):
        return now
    if isinstance(before, Quality) or now < before or seconds <= 0:
        return Quality.ABSENT  # Nothing to compare with: the counter is new or began anew.
    return (now - before) / seconds


def _network(before: Reading, now: Reading, seconds: float) -> Metrics:
    """Counters and rates of each interface; one entry `network` where none can be listed."""
    if isinstance(now.network, Quality):
        return {"network": _entry(now.network, "B")}
    known = {} if isinstance(before.network, Quality) else before.network
    found: Metrics = {}
    for name, traffic in now.network.items():
        found[f"net_{name}_received"] = _entry(traffic.received, "B")
        found[f"net_{name}_sent"] = _entry(traffic.sent, "B")
        old = known.get(name, Quality.ABSENT)
        found |= _rates(f"net_{name}", ("received", "sent"), old, traffic, seconds)
    return found


def _temperatures(chips: dict[str, float] | Quality) -> Metrics:
    """`temperature` is the hottest chip that can be believed; each chip has its own entry too."""
    if isinstance(chips, Quality):
        return {"temperature": _entry(chips, "°C")}
    checked = {
        chip: value if COLDEST <= value <= HOTTEST else Quality.MALFORMED
        for chip, value in chips.items()
    }
    believed = [value for value in checked.values() if not isinstance(value, Quality)]
    hottest = max(believed, default=Quality.MALFORMED)
    return {
        "temperature": _entry(hottest, "°C", 1),
        **{f"temperature_{chip}": _entry(value, "°C", 1) for chip, value in checked.items()},
    }
