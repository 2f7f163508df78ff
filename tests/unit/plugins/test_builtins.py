"""Every built-in keeps the contract that others' plugins are held to, its papers included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nexus_agent import discovery
from nexus_agent.workbench import declared, subject
from nexus_agent.workbench.check import Patience, check

BUILT_IN = sorted(name for name, code in discovery.available().items() if code.own)


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_passes_every_check(name: str) -> None:
    found = list(check(discovery.find(name), Patience(within=2.0)))

    assert [finding for finding in found if not finding.ok] == []
    assert found[-1].check == "events"


@pytest.mark.parametrize("name", BUILT_IN)
def test_its_readme_has_nothing_but_the_headings_and_what_follows_them(name: str) -> None:
    text = subject.load(discovery.find(name)).text("README.md") or ""

    headings = list(declared.sections(text))

    assert headings[: len(declared.HEADINGS)] == list(declared.HEADINGS)
    assert "<!-- generated: settings -->" in text, "the table comes from the model"


def test_the_example_is_explained_with_its_own_code() -> None:
    folder = subject.load(discovery.find("example")).folder
    code = {line.strip() for line in Path(folder, "plugin.py").read_text("utf-8").splitlines()}

    blocks = re.findall(
        r"```python\n(.*?)```", Path(folder, "README.md").read_text("utf-8"), re.DOTALL
    )
    shown = {line.strip() for block in blocks for line in block.splitlines()} - {"..."}

    assert len(blocks) >= 4
    assert sorted(shown - code) == []
