"""One look at the machine: raw figures and counters, as the kernel gives them. Blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil

from nexus_agent.plugin import Quality
from nexus_plugins.host.clock import synchronised

T = TypeVar("T")

# Where the machine's own part of /proc is, if a sandbox shows no more of /proc than processes.
psutil.PROCFS_PATH = os.environ.get("HOST_PROC", psutil.PROCFS_PATH)


class Cpu(NamedTuple):
    """Seconds since boot, summed over all cores."""

    busy: float
    total: float


class Space(NamedTuple):
    """Bytes of memory or of a disk, and how full it is in percent, as `free` and `df` say it."""

    used: int
    free: int
    percent: float


class Traffic(NamedTuple):
    """Bytes since boot, into the machine's memory and out of it."""

    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found, or why nothing was. at is seconds of CLOCK_BOOTTIME, which is the uptime."""

    at: float
    cpu: Cpu | Quality
    load: tuple[float, float, float] | Quality
    memory: Space | Quality
    swap: Space | Quality
    disks: dict[str, Space | Quality]
    disk_io: Traffic | Quality
    network: dict[str, Traffic] | Quality
    temperatures: dict[str, float] | Quality
    """The hottest sensor of each chip, °C."""
    clock_synchronised: bool | Quality
    boot_time: float | Quality
    """Seconds since the Unix epoch."""


def read(state_path: Path, ignored_interfaces: Sequence[str]) -> Reading:
    """Look at the machine. What cannot be found out is a Quality in its place."""
    return Reading(
        at=time.clock_gettime(time.CLOCK_BOOTTIME),
        cpu=_attempt(_cpu),
        load=_attempt(psutil.getloadavg),
        memory=_attempt(_memory),
        swap=_attempt(_swap),
        disks={
            "root": _attempt(lambda: _disk(Path("/"))),
            "state": _attempt(lambda: _disk(state_path)),
        },
        disk_io=_attempt(_disk_io),
        network=_attempt(lambda: _network(ignored_interfaces)),
        temperatures=_attempt(_temperatures),
        clock_synchronised=_attempt(synchronised),
        boot_time=_attempt(psutil.boot_time),
    )


def _attempt(look: Callable[[], T | Quality]) -> T | Quality:
    try:
        return look()
    except (PermissionError, psutil.AccessDenied):
        return Quality.REFUSED
    except (OSError, psutil.Error, NotImplementedError):
        return Quality.ABSENT
    except (ValueError, LookupError):  # A file under /proc or /sys that psutil cannot parse.
        return Quality.MALFORMED


def _cpu() -> Cpu:
    # Not psutil.cpu_times, which works out at import, and from /proc alone, what fields there are.
    line = Path(psutil.PROCFS_PATH, "stat").read_text("ascii").split("\n", 1)[0]
    # proc(5): user and nice include the two fields that follow these eight; iowait is idle time.
    ticks = [int(field) for field in line.split()[1:9]]
    _, _, _, idle, iowait, *_ = ticks
    second, total = os.sysconf("SC_CLK_TCK"), sum(ticks)
    return Cpu((total - idle - iowait) / second, total / second)


def _memory() -> Space:
    memory = psutil.virtual_memory()
    return Space(memory.total - memory.available, memory.available, memory.percent)


def _swap() -> Space | Quality:
    swap = psutil.swap_memory()
    return Space(swap.used, swap.free, swap.percent) if swap.total else Quality.ABSENT


def _disk(path: Path) -> Space:
    usage = psutil.disk_usage(str(path))
    return Space(usage.used, usage.free, usage.percent)


def _disk_io() -> Traffic | Quality:
    counters = psutil.disk_io_counters(nowrap=False)
    if counters is None:
        return Quality.ABSENT
    return Traffic(counters.read_bytes, counters.write_bytes)


def _network(ignored: Sequence[str]) -> dict[str, Traffic]:
    """The interfaces that are up, but for the ignored ones."""
    states = psutil.net_if_stats()
    return {
        name: Traffic(counters.bytes_recv, counters.bytes_sent)
        for name, counters in sorted(psutil.net_io_counters(pernic=True, nowrap=False).items())
        if name in states
        and states[name].isup
        and not any(fnmatch(name, pattern) for pattern in ignored)
    }


def _temperatures() -> dict[str, float] | Quality:
    chips = {
        chip: max(sensor.current for sensor in sensors)
        for chip, sensors in sorted(psutil.sensors_temperatures().items())
        if sensors
    }
    return chips or Quality.ABSENT
