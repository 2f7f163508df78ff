"""Finding plugins: a distribution made on the spot, as `pip install` would leave it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nexus_agent import discovery
from nexus_agent.discovery import DiscoveryError

GOOD = """\
from nexus_agent.plugin import Plugin
class Lamp(Plugin):
    name = "lamp"
    async def run(self): ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path whose module `lamp_plugin` is the plugin `lamp`."""
    info = tmp_path / "lamp_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lamp-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nexus.plugins]\nlamp = lamp_plugin:Lamp\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lamp_plugin", raising=False)
    return tmp_path / "lamp_plugin.py"


def test_an_installed_plugin_is_found_without_being_imported(install: Path) -> None:
    install.write_text("raise SystemExit('imported')")
    assert {"host", "obd", "lamp"} <= set(discovery.available())


def test_a_plugin_is_loaded_by_its_name(install: Path) -> None:
    install.write_text(GOOD)
    assert discovery.load("lamp").name == "lamp"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("obdd", "did you mean 'obd'?"), ("zzz", "installed: host, lamp, obd"), ("", "installed: ")],
)
def test_an_unknown_name_gets_a_suggestion(install: Path, name: str, hint: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        discovery.load(name)
    assert str(caught.value).startswith(f"no plugin {name!r} is installed; {hint}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name", "does not load: ModuleNotFoundError: No module named"),
        ("class Lamb: ...", "does not load: AttributeError: "),
        ("class Lamp(", "does not load: SyntaxError: "),
        ("1 / 0", "does not load: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "does not load: SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "does not load: ValueError: two lines"),
        ("class Lamp: ...", "lamp_plugin:Lamp is not a Plugin class"),
        ("Lamp = 3", "lamp_plugin:Lamp is not a Plugin class"),
        (GOOD.replace('"lamp"', '"torch"'), "calls itself 'torch'"),
        (GOOD.replace('name = "lamp"', "pass"), "calls itself None"),
    ],
)
def test_what_does_not_load_is_one_line_with_its_name(
    install: Path, source: str, message: str
) -> None:
    install.write_text(source)
    with pytest.raises(DiscoveryError) as caught:
        discovery.load("lamp")
    assert str(caught.value).startswith("plugin 'lamp'")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
