"""One run of `make bench` with the machine that it ran on, as it is kept in docs/figures."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

HOUSE: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = HOUSE / "docs" / "figures"
RESULT: Final = HOUSE / "build" / "bench.json"
COMMAND: Final = "make figures"
_PINS: Final = HOUSE / "requirements" / "peers.txt"


class NoFiguresError(Exception):
    """There is no complete run to take; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """figures: what bench.json holds. machine: what it is called, to what it is, for people."""

    date: str
    command: str
    machine: dict[str, str]
    figures: list[dict[str, Any]]


def newest() -> Snapshot:
    """The one that the pages show. Raises NoFiguresError."""
    found = sorted(FOLDER.glob("bench-*.json"))
    if not found:
        raise NoFiguresError(f"there is no run in docs/figures; `{COMMAND}` makes one")
    return Snapshot(**json.loads(found[-1].read_text("utf-8")))


def keep() -> Path:
    """Write down the last run of `make bench`; the file. Raises NoFiguresError."""
    try:
        figures = json.loads(RESULT.read_text("utf-8"))
    except FileNotFoundError:
        raise NoFiguresError("build/bench.json is not there: run `make bench` first") from None
    if not any(figure["name"].startswith("peer.") for figure in figures):
        raise NoFiguresError("build/bench.json is of a run of some parts: run all of `make bench`")
    date = datetime.now(UTC).date().isoformat()
    document = {"date": date, "command": COMMAND, "machine": _machine(), "figures": figures}
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"bench-{date}.json"
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return file


def _machine() -> dict[str, str]:
    model = re.search(r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    gateway = re.search(r"^thingsboard-gateway==(\S+)", _text(_PINS), re.MULTILINE)
    return {
        "processor": f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "mosquitto": _mosquitto(),
        "thingsboard-gateway": gateway[1] if gateway else "unknown",
        "load, the last 15 minutes": f"{os.getloadavg()[2]:.1f}",
    }


def _text(file: str | Path) -> str:
    try:
        return Path(file).read_text("utf-8")
    except OSError:
        return ""


def _mosquitto() -> str:
    command = shutil.which("mosquitto")
    if command is None:
        return "none"
    said = subprocess.run([command, "-h"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0].rpartition(" ")[2] if said else "unknown"
