"""What docs/figures.md makes of a run, gaps and missed budgets included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from nexus_docs import figures, plot, snapshot
from nexus_docs.snapshot import NoFiguresError, Snapshot


def row(name: str, value: float | None, **more: Any) -> dict[str, Any]:
    rest = {"unit": "events/s", "budget": None, "ok": None, "compared_with": None}
    return {"name": name, "value": value, **rest, **more}


RUN = Snapshot(
    date="2026-11-23",
    command="make figures",
    machine={"processor": "a test"},
    figures=[
        row("durable events", 199_000.4, budget=">= 200000", ok=False),
        row("trickle, kept", 54.61, budget="<= 100", ok=True),
        row("peer.nexus.throughput", 199_000),
        row("peer.nexus.lost-at-sigkill", 0, compared_with="of 12000 that were accepted"),
        row("peer.raw-ceiling.throughput", 250_000),
        row("peer.thingsboard-gateway.flow", None, compared_with="not measured: no index"),
        row("peer.nexus.throughput-over-raw-ceiling", 0.796, budget=">= 0.3", ok=True),
    ],
)


def line(part: str, beginning: str) -> str:
    found = [text for text in figures.parts(RUN)[part].splitlines() if text.startswith(beginning)]
    assert len(found) == 1
    return found[0]


def test_a_contestant_without_a_value_has_a_dash_and_its_reason_is_told() -> None:
    assert line("peers", "| events/s") == "| events/s | 199,000 | 250,000 | - | - | - | - |"
    assert line("peers", "- ") == "- `peer.thingsboard-gateway.flow`: not measured: no index"


def test_what_was_lost_stands_beside_what_was_promised() -> None:
    assert line("peers", "| accepted events lost").startswith(
        "| accepted events lost by SIGKILL, online | 0 of 12,000 |"
    )


def test_a_ratio_has_its_budget_and_a_missing_one_has_none() -> None:
    assert line("ratios", "| raw ceiling") == "| raw ceiling | 0.796 times | \u2265 0.3 | - |  |"
    assert line("ratios", "| thingsboard-gateway") == "| thingsboard-gateway | - |  | - |  |"


def test_a_missed_budget_says_so() -> None:
    assert "| \u2265 200000, **missed** |" in line("budgets", "| durable events")
    assert "| \u2264 100 |" in line("budgets", "| trickle, kept")


def test_the_plot_has_a_bar_for_each_value() -> None:
    drawing = ET.fromstring(plot.draw(RUN))
    bars = drawing.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 2, "the card, and a bar for each of two"
    assert float(bars[1].attrib["width"]) < float(bars[2].attrib["width"])


@pytest.mark.parametrize(
    ("held", "message"),
    [(None, "run `make bench` first"), ([row("durable events", 1.0)], "run all of `make bench`")],
)
def test_only_a_whole_run_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: Any, message: str
) -> None:
    result = tmp_path / "bench.json"
    if held is not None:
        result.write_text(json.dumps(held))
    monkeypatch.setattr(snapshot, "RESULT", result)
    monkeypatch.setattr(snapshot, "FOLDER", tmp_path / "figures")
    with pytest.raises(NoFiguresError, match=message):
        snapshot.keep()
    assert not (tmp_path / "figures").exists()


def test_the_run_that_was_kept_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "bench.json"
    result.write_text(json.dumps(RUN.figures))
    monkeypatch.setattr(snapshot, "RESULT", result)
    monkeypatch.setattr(snapshot, "FOLDER", tmp_path / "figures")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "bench-2001-01-01.json").write_text("{}")
    snapshot.keep()
    assert snapshot.newest().figures == RUN.figures
    assert snapshot.newest().machine["Python"]
