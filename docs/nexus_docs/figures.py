"""The tables of docs/figures.md, from the newest run that is kept."""

from __future__ import annotations

from typing import Any, Final

from nexus_docs.snapshot import Snapshot

PEER: Final = "peer."
OURS: Final = "nexus"
COLUMNS: Final = {
    "nexus": "Nexus Core",
    "raw-ceiling": "raw ceiling",
    "mosquitto-bridge": "mosquitto bridge",
    "mosquitto-bridge-plain": "the same, no TLS",
    "thingsboard-gateway": "thingsboard-gateway",
    "thingsboard-gateway-batched": "the same, batched",
}
ROWS: Final = {
    "throughput": "events/s",
    "cpu": "CPU-seconds for 100,000",
    "idle-memory": "idle, MB RSS",
    "peak-memory": "busy, highest MB RSS",
    "wire": "bytes an event on the wire",
    "disk": "bytes an event on the disk",
    "cold-start": "seconds from start to online",
    "lost-at-sigkill": "accepted events lost by SIGKILL, online",
    "lost-at-sigkill-offline": "the same, with the line down",
}
_OVER: Final = "-over-"
_NONE: Final = "-"


def parts(snapshot: Snapshot) -> dict[str, str]:
    """What stands between the marks of the page."""
    return {
        "machine": _machine(snapshot),
        "peers": _peers(snapshot),
        "ratios": _ratios(snapshot),
        "budgets": _budgets(snapshot),
    }


def value(snapshot: Snapshot, name: str, what: str) -> dict[str, Any] | None:
    """A contestant's row, or None where there is none."""
    wanted = f"{PEER}{name}.{what}"
    return next((row for row in snapshot.figures if row["name"] == wanted), None)


def number(found: float) -> str:
    """As people read it: three digits that count, thousands apart."""
    if found >= 1000:
        return f"{round(found):,}"
    return f"{found:.3g}"


def _machine(snapshot: Snapshot) -> str:
    rows = "\n".join(f"| {name} | {what} |" for name, what in snapshot.machine.items())
    head = f"`{snapshot.command}` on {snapshot.date}:"
    return f"{head}\n\n| the machine | |\n|---|---|\n{rows}\n"


def _peers(snapshot: Snapshot) -> str:
    lines = ["| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for what, text in ROWS.items():
        cells = [_cell(value(snapshot, name, what)) for name in COLUMNS]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_absent(snapshot)]) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return _NONE
    promised = row["compared_with"] or ""
    of = f" of {int(promised.split()[1]):,}" if promised.startswith("of ") else ""
    return number(row["value"]) + of


def _absent(snapshot: Snapshot) -> list[str]:
    lacking = [row for row in snapshot.figures if row["value"] is None]
    if not lacking:
        return []
    return ["", *(f"- `{row['name']}`: {row['compared_with']}" for row in lacking)]


def _ratios(snapshot: Snapshot) -> str:
    lines = ["| Nexus Core against | events/s | budget | CPU an event | budget |", "|---" * 5 + "|"]
    for name, text in COLUMNS.items():
        cells = [
            cell
            for what in ("throughput", "cpu")
            for cell in _judged(value(snapshot, OURS, f"{what}{_OVER}{name}"))
        ]
        if name != OURS:
            lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _judged(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None or row["value"] is None:
        return _NONE, ""
    return f"{number(row['value'])} times", _budget(row)


def _budgets(snapshot: Snapshot) -> str:
    lines = ["| what | measured | budget | how |", "|---|---|---|---|"]
    for row in snapshot.figures:
        if row["name"].startswith(PEER):
            continue
        measured = _NONE if row["value"] is None else f"{number(row['value'])} {row['unit']}"
        how = row["compared_with"] or ""
        lines.append(f"| {row['name']} | {measured} | {_budget(row)} | {how} |")
    return "\n".join(lines) + "\n"


def _budget(row: dict[str, Any]) -> str:
    if not row["budget"]:
        return ""
    text = row["budget"].replace(">=", "≥").replace("<=", "≤")
    return text if row["ok"] else f"{text}, **missed**"
