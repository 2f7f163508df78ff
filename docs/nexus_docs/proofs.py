"""The table of docs/proofs.md, from the runs of `make chaos` that are kept.

The suites take hours together and may be run one by one: of each, the run that was kept last stays.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nexus_docs.snapshot import FOLDER, HOUSE, NoFiguresError

KEPT: Final = FOLDER / "chaos.json"
RESULT: Final = HOUSE / "build" / "chaos.json"
_HEAD: Final = (
    "| suite | cases | promised | lost | visible twice | duplicates absorbed | controls found out "
    "| seed, date | took |"
)


def runs() -> list[dict[str, Any]]:
    """The kept rows of chaos.json, each with its `date`, in the order of the suites."""
    found: list[dict[str, Any]] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else []
    return found


def keep() -> Path:
    """Take in the last run of `make chaos`; the file. Raises NoFiguresError."""
    try:
        rows = json.loads(RESULT.read_text("utf-8"))
    except FileNotFoundError:
        raise NoFiguresError("build/chaos.json is not there: run `make chaos` first") from None
    date = datetime.now(UTC).date().isoformat()
    known = {row["name"]: row for row in runs()}
    known |= {row["name"]: row | {"date": date} for row in rows if "skipped" not in row}
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(list(known.values()), indent=1, ensure_ascii=False)
    KEPT.write_text(text + "\n", "utf-8")
    return KEPT


def parts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """What stands between the marks of the page."""
    return {"proofs": "\n".join([_HEAD, "|---" * 9 + "|", *map(_line, rows)]) + "\n"}


def _line(row: dict[str, Any]) -> str:
    controls = row.get("controls", {})
    found_out = sum(control["failed"] for control in controls.values())
    cells = [
        f"`{row['name']}`" + ("" if row["ok"] else ", **failed**"),
        *(
            f"{row.get(name, 0):,}"
            for name in ("count", "acknowledged", "lost", "visible_duplicates", "wire_duplicates")
        ),
        f"{found_out} of {len(controls)}",
        f"{row['seed']}, {row['date']}",
        _duration(row.get("seconds", 0.0)),
    ]
    return f"| {' | '.join(cells)} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
