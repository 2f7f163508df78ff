"""Which files have generated parts, and what they should hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from nexus_agent.protocol.catalogue import VERSION
from nexus_docs import (
    asyncapi,
    configuration,
    events,
    figures,
    metrics,
    plot,
    proofs,
    rest,
    snapshot,
)

DOCS: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = DOCS / "reference"
PLUGINS: Final = DOCS.parent / "plugins" / "nexus_plugins"
_PART: Final = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def pages() -> dict[Path, str]:
    """Every such file with the text that fits the code; what people wrote in it stays."""
    openapi = rest.document()
    protocol = REFERENCE / "asyncapi.yaml"
    settings, measures = REFERENCE / "configuration.md", REFERENCE / "metrics.md"
    told = REFERENCE / "events.md"
    recorded = REFERENCE / "catalogue" / f"{VERSION}.json"
    run, measured = snapshot.newest(), DOCS / "figures.md"
    proven = DOCS / "proofs.md"
    return {
        REFERENCE / "openapi.json": rest.as_json(openapi),
        REFERENCE / "rest.md": rest.as_page(openapi),
        protocol: asyncapi.with_schemas(protocol.read_text("utf-8")),
        settings: _fill(settings.read_text("utf-8"), configuration.tables()),
        measures: _fill(measures.read_text("utf-8"), {"metrics": metrics.table()}),
        told: _fill(told.read_text("utf-8"), {"events": events.sections()}),
        recorded: _recorded(recorded),
        measured: _fill(measured.read_text("utf-8"), figures.parts(run)),
        proven: _fill(proven.read_text("utf-8"), proofs.parts(proofs.runs())),
        snapshot.FOLDER / "side-by-side.svg": plot.draw(run),
        **{PLUGINS / name / "README.md": _readme(name) for name in configuration.PLUGINS},
    }


def _recorded(file: Path) -> str:
    """A version of the catalogue is written down once: what differs from it is another version."""
    if file.exists():
        return file.read_text("utf-8")
    return json.dumps(events.schemas(), indent=1, sort_keys=True) + "\n"


def _readme(plugin: str) -> str:
    text = (PLUGINS / plugin / "README.md").read_text("utf-8")
    return _fill(text, {"settings": configuration.plugin_table(plugin)})


def _fill(text: str, parts: dict[str, str]) -> str:
    """Put each part between its marks. KeyError for a mark that no part is for."""
    return _PART.sub(lambda mark: f"{mark[1]}\n{parts[mark[2]]}\n{mark[3]}", text)
