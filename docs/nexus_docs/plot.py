"""The plot of docs/figures.md: bars in panels, on a white card, for light and dark pages alike."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from nexus_docs.figures import COLUMNS, OURS, number, value
from nexus_docs.snapshot import Snapshot

_PANELS: Final = {
    "throughput": "events/s: more is better",
    "cpu": "CPU-seconds for 100,000 events: less is better",
    "wire": "bytes an event on the wire: less is better",
    "disk": "bytes an event on the disk: less is better",
}
_WIDTH: Final = 760
_LABELS: Final = 190
_BARS: Final = 470
_BAR: Final = 16
_STEP: Final = 24
_HEAD: Final = 34
_GAP: Final = 18
_INK: Final = "#1f2937"
_FILL: Final = {True: "#1056f2", False: "#9ca3af"}


def draw(snapshot: Snapshot) -> str:
    """One panel for each measure; a contestant without a value has no bar."""
    y, body = _GAP, []
    for what, title in _PANELS.items():
        rows = {name: value(snapshot, name, what) for name in COLUMNS}
        values = {name: row["value"] for name, row in rows.items() if row and row["value"]}
        if values:
            body.append(_panel(title, values, y))
            y += _HEAD + _STEP * len(values) + _GAP
    return "\n".join([_head(y), *body, "</svg>", ""])


def _head(height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13"'
        ' role="img" aria-label="Nexus Core beside a raw loop, a mosquitto bridge and'
        ' thingsboard-gateway; the table has the numbers">\n'
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>'
    )


def _panel(title: str, values: dict[str, float], top: int) -> str:
    most = max(values.values())
    text = escape(title)
    lines = [f'<text x="16" y="{top + 14}" font-weight="600" fill="{_INK}">{text}</text>']
    for place, (name, found) in enumerate(values.items()):
        y = top + _HEAD + place * _STEP
        width = max(1, round(found / most * _BARS))
        fill, text = _FILL[name == OURS], f'y="{y + 12}" fill="{_INK}"'
        label = escape(_label(name))
        lines += [
            f'<text x="{_LABELS - 8}" {text} text-anchor="end">{label}</text>',
            f'<rect x="{_LABELS}" y="{y}" width="{width}" height="{_BAR}" rx="2" fill="{fill}"/>',
            f'<text x="{_LABELS + width + 6}" {text}>{number(found)}</text>',
        ]
    return "\n".join(lines)


def _label(name: str) -> str:
    alone = {"mosquitto-bridge-plain": "bridge without TLS"}
    alone["thingsboard-gateway-batched"] = "gateway, batched"
    return alone.get(name, COLUMNS[name])
