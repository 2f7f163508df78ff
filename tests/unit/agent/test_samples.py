"""The sample settings that ship are settings that work."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_agent.config import load_config

ROOT = Path(__file__).resolve().parents[3]


def test_the_sample_of_the_agent_loads() -> None:
    config = load_config(ROOT / "config/agent.toml", {})
    assert config.broker.port == 8883


@pytest.mark.parametrize("sample", sorted(ROOT.glob("plugins/nexus_plugins/*/sample.toml")))
def test_the_sample_of_a_plugin_loads_as_a_part_of_agent_toml(sample: Path, tmp_path: Path) -> None:
    whole = tmp_path / "agent.toml"
    whole.write_text('[broker]\nurl = "mqtts://broker.example"\n' + sample.read_text("utf-8"))
    assert sample.parent.name in load_config(whole, {}).plugins
