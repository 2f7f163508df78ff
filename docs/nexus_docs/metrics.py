"""The table of docs/reference/metrics.md, from the definitions that write the page itself."""

from __future__ import annotations

from nexus_agent.metrics import METRICS, Metric


def table() -> str:
    """A row for each family: name, labels and kind, meaning."""
    return "| metric, labels | kind | meaning |\n|---|---|---|\n" + "".join(map(_row, METRICS))


def _row(metric: Metric) -> str:
    labels = "".join(f"<br>`{label}`" for label in metric.labels)
    meaning = metric.help.replace("|", r"\|")
    return f"| `{metric.name}`{labels} | {metric.kind} | {meaning} |\n"
