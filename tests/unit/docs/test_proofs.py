"""What docs/proofs.md makes of runs, and which run it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nexus_docs import proofs
from nexus_docs.snapshot import NoFiguresError


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "seed": 7, "ok": True, "count": 1350, "lost": 0, "seconds": 90.0} | more


def lines(*rows: dict[str, Any]) -> list[str]:
    return proofs.parts([one | {"date": "2026-11-23"} for one in rows])["proofs"].splitlines()[2:]


def test_a_run_has_its_counts_and_its_seed() -> None:
    (line,) = lines(row("kill", acknowledged=54321, controls={"one": {"failed": True, "lost": 3}}))
    assert line == "| `kill` | 1,350 | 54,321 | 0 | 0 | 0 | 1 of 1 | 7, 2026-11-23 | 90 s |"


def test_a_failed_run_says_so() -> None:
    assert lines(row("kill", ok=False, seconds=600.0))[0].startswith("| `kill`, **failed** |")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result and a folder of kept runs that are the test's own."""
    monkeypatch.setattr(proofs, "FOLDER", tmp_path)
    monkeypatch.setattr(proofs, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(proofs, "RESULT", tmp_path / "result.json")
    return tmp_path


def test_of_each_suite_the_run_that_was_kept_last_stays(here: Path) -> None:
    for rows in ([row("kill"), row("power")], [row("power", seed=8)]):
        (here / "result.json").write_text(json.dumps(rows), "utf-8")
        proofs.keep()
    assert [(one["name"], one["seed"]) for one in proofs.runs()] == [("kill", 7), ("power", 8)]


def test_without_a_run_there_is_nothing_to_keep(here: Path) -> None:
    with pytest.raises(NoFiguresError, match="make chaos"):
        proofs.keep()
