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
import ingest
import process
import uvloop
from figure import SEED, Figure

from nexus_agent import logs

STARTS_PROCESSES: Final = {"durable", "process"}
"""uvloop cannot start a process in a group of its own; what is measured there uses it inside."""

OUTPUT: Final = Path("build/bench.json")
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
    }
    logs.configure(logs.LogSettings(level="warning"))
    print(f"seed {SEED}", file=sys.stderr)
    figures: list[Figure] = []
    OUTPUT.parent.mkdir(exist_ok=True)
    for name in options.only or measurements:
        print(f"measuring {name} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=OUTPUT.parent) as folder:
            run = asyncio.run if name in STARTS_PROCESSES else uvloop.run
            found = run(measurements[name](Path(folder).resolve()))
        for figure in found:
            print(_line(figure), file=sys.stderr)
        figures += found
    text = json.dumps([asdict(figure) for figure in figures])
    OUTPUT.write_text(text + "\n", "utf-8")
    print(text)
    return 0


def _line(figure: Figure) -> str:
    mark = {True: "ok", False: "MISSED", None: "--"}[figure.ok]
    budget = f" (budget {figure.budget})" if figure.budget else ""
    against = f" [{figure.compared_with}]" if figure.compared_with else ""
    return f"  {mark:6} {figure.name}: {figure.value:,} {figure.unit}{budget}{against}"


if __name__ == "__main__":
    sys.exit(main())
