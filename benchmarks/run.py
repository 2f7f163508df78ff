"""`make bench`: measures what DESIGN section 6 budgets. The last line is JSON, as is bench.json.

Every figure is taken on real parts: outbox, sender and link over TLS through a real broker to a
minimal acknowledging peer in a process of its own; the agent as a process; the console's writer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import delivery
import idle
import ingest
import offline
import process
import sidebyside
import uvloop
import whole
from failures import FAILURES, reasons
from figure import SEED, Figure

from nexus_agent import logs

IN_PROCESS: Final = {"latency", "trickle", "ingest"}
"""The others start processes in groups of their own, which uvloop cannot; it runs inside them."""

OUTPUT: Final = Path("build/bench.json")
LONGEST_S: Final = 180.0
"""No measurement takes longer; one that would is given up."""
PEERS_LONGEST_S: Final = 900.0
"""Seventeen in one, each with limits of its own, and an environment to install the first time."""
Measurement = Callable[[Path], Coroutine[Any, Any, list[Figure]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the load")
    parser.add_argument("only", nargs="*", help="names of measurements; all if none is given")
    options = parser.parse_args()
    scale = 0.1 if options.quick else 1.0
    measurements: dict[str, Measurement] = {
        "durable": lambda folder: delivery.durable(folder, int(400_000 * scale)),
        "latency": lambda folder: delivery.latency(folder, 10 * scale),
        "trickle": lambda folder: delivery.trickle(folder, max(5.0, 30 * scale)),
        "ingest": lambda folder: ingest.into_both(folder, int(400_000 * scale)),
        "process": lambda folder: process.start_and_idle(folder, max(3.0, 30 * scale)),
        "offline": lambda folder: offline.backlog(folder, int(1_000_000 * scale)),
        "console": lambda folder: whole.into_console(
            folder, int(200_000 * scale), max(40, int(200 * scale))
        ),
        "restart": lambda folder: process.restart(folder, int(500 * scale)),
        "idle": lambda folder: idle.traffic(folder, 2 if options.quick else 4),
        "peers": lambda folder: sidebyside.peers(folder, scale),
    }
    logs.configure(logs.LogSettings(level="warning"))
    print(f"seed {SEED}", file=sys.stderr)
    figures: list[Figure] = []
    OUTPUT.parent.mkdir(exist_ok=True)
    for name in options.only or measurements:
        print(f"measuring {name} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=OUTPUT.parent) as folder:
            run = uvloop.run if name in IN_PROCESS else asyncio.run
            found = run(_measure(name, measurements[name](Path(folder).resolve())))
        for figure in found:
            print(_line(figure), file=sys.stderr)
        figures += found
    text = json.dumps([asdict(figure) for figure in figures])
    OUTPUT.write_text(text + "\n", "utf-8")
    print(text)
    return 0


async def _measure(name: str, measurement: Coroutine[Any, Any, list[Figure]]) -> list[Figure]:
    """Its figures, or one without a value that says why there are none."""
    found: list[Figure] = []
    why = ""
    try:
        async with asyncio.timeout(PEERS_LONGEST_S if name == "peers" else LONGEST_S):
            found = await measurement
    except* FAILURES as group:
        why = reasons(group)
    return found or [Figure(name, None, "", None, ok=False, compared_with=f"not measured: {why}")]


def _line(figure: Figure) -> str:
    mark = {True: "ok", False: "MISSED", None: "--"}[figure.ok]
    budget = f" (budget {figure.budget})" if figure.budget else ""
    against = f" [{figure.compared_with}]" if figure.compared_with else ""
    value = "no value" if figure.value is None else f"{figure.value:,} {figure.unit}"
    return f"  {mark:6} {figure.name}: {value}{budget}{against}"


if __name__ == "__main__":
    sys.exit(main())
