"""`make chaos`: proves the delivery contract by breaking things. The last line is JSON.

Each suite runs its cases, and then its controls: the same with something broken on purpose, which
must be seen to fail. Exit code 1 where a promise was broken or a control did not fail. A suite
whose programs this machine lacks is skipped and says so; with CI=true that is a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos.suite import Outcome, Plan, Suite

from nexus_agent import logs

SUITES: Final = ("kill", "power", "faults", "rot", "network", "times", "machine", "simulation")
"""Modules beside this one, each with its SUITE, in the order of their runs."""
OUTPUT: Final = Path("build/chaos.json")
SHOWN: Final = 10
"""Failures that are printed of one run."""


def main() -> int:
    options = _options()
    logs.configure(logs.LogSettings(level="error"))
    seed = options.seed if options.seed is not None else secrets.randbelow(2**32)
    OUTPUT.parent.mkdir(exist_ok=True)
    rows = []
    for name in options.only or SUITES:
        suite: Suite = importlib.import_module(f"tests.chaos.{name}").SUITE
        rows.append(_row(suite, seed, options))
    text = json.dumps(rows)
    OUTPUT.write_text(text + "\n", "utf-8")
    print(text)
    return 1 if any(map(_is_failure, rows)) else 0


def _is_failure(row: dict[str, Any]) -> bool:
    """A suite that this machine cannot run is none, but where CI vouches for all of them."""
    return not row["ok"] and ("skipped" not in row or os.environ.get("CI") == "true")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="suite", help="all if none is given")
    parser.add_argument("--quick", action="store_true", help="few cases of each")
    parser.add_argument("--seed", type=int, help="what a run before has printed")
    parser.add_argument("--count", type=int, help="this many cases of each")
    parser.add_argument("--case", type=int, help="this one case alone, without the controls")
    return parser.parse_args()


def _row(suite: Suite, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run *suite*; its line of the result."""
    _say(f"{suite.name}: {suite.what}, seed {seed}")
    row: dict[str, Any] = {"name": suite.name, "seed": seed}
    if missing := _missing(suite):
        _say(f"  skipped: it {missing}")
        return row | {"count": 0, "ok": False, "skipped": missing, "failures": []}
    count = options.count or (suite.quick if options.quick else suite.full)
    cases = range(count) if options.case is None else [options.case]
    began = time.monotonic()
    outcome = _run(suite.name, suite.run, seed, cases)
    row |= {
        "count": outcome.count,
        "acknowledged": outcome.acknowledged,
        "lost": outcome.lost,
        "visible_duplicates": outcome.visible_duplicates,
        "wire_duplicates": outcome.wire_duplicates,
        "ok": outcome.ok,
        "failures": outcome.failures[:SHOWN],
        "figures": outcome.figures,
        "controls": {},
    }
    for control in suite.controls if options.case is None else ():
        found = _run(f"{suite.name}-control", control.run, seed, range(control.cases))
        row["controls"][control.broken] = {"failed": not found.ok, "lost": found.lost}
        row["ok"] &= not found.ok
        _say(f"  {control.broken}: {'found out' if not found.ok else 'NOT FOUND OUT'}")
    row["seconds"] = round(time.monotonic() - began, 1)
    _tell(suite, outcome, row)
    return row


def _run(name: str, run: Any, seed: int, cases: Sequence[int]) -> Outcome:
    folder = (OUTPUT.parent / "chaos" / name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcome: Outcome = run(Plan(seed, cases, folder, lambda text: _say(f"  {text}")))
    if outcome.ok:
        shutil.rmtree(folder)
    return outcome


def _missing(suite: Suite) -> str:
    absent = [program for program in suite.needs if shutil.which(program) is None]
    if suite.root and os.geteuid() != 0:
        absent.append("root")
    return f"needs {', '.join(absent)}" if absent else ""


def _tell(suite: Suite, outcome: Outcome, row: dict[str, Any]) -> None:
    _say(
        f"  {'ok' if row['ok'] else 'FAILED'}: {outcome.count:,} cases in {row['seconds']:,} s, "
        f"{outcome.acknowledged:,} promised, {outcome.lost:,} lost, "
        f"{outcome.visible_duplicates:,} visible twice, "
        f"{outcome.wire_duplicates:,} duplicates on the wire"
    )
    for name, value in outcome.figures.items():
        _say(f"  {name}: {value}")
    for failure in outcome.failures[:SHOWN]:
        _say(f"  {failure}")
    if outcome.failures:
        _say(f"  again: .venv/bin/python -m tests.chaos {suite.name} --seed {row['seed']} --case N")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
