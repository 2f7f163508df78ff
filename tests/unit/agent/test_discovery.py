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
    version = description = author = "1"
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
    assert discovery.load(discovery.find("lamp")).name == "lamp"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("obdd", "did you mean 'obd'?"),
        ("zzz", "installed: can_signals, example, host, j1939, lamp, obd, uds"),
        ("", "installed: "),
    ],
)
def test_an_unknown_name_gets_a_suggestion(install: Path, name: str, hint: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        discovery.find(name)
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
        (GOOD.replace("version = ", "other = "), "does not say its version"),
    ],
)
def test_what_does_not_load_is_one_line_with_its_name(
    install: Path, source: str, message: str
) -> None:
    install.write_text(source)
    with pytest.raises(DiscoveryError) as caught:
        discovery.load(discovery.find("lamp"))
    assert str(caught.value).startswith("plugin 'lamp'")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


MANIFEST = """\
api = 1
name = "lamp"
code = "lamp_code:Lamp"
"""


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundles, with one."""
    folder = tmp_path / "bundles" / "lamp"
    folder.mkdir(parents=True)
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "lamp_code.py").write_text(GOOD)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "lamp_code", raising=False)
    return folder.parent


def test_a_bundle_is_found_by_its_folder_and_loaded(bundles: Path) -> None:
    code = discovery.find("lamp", bundles)
    assert (code.folder, code.own) == (bundles / "lamp", False)
    assert discovery.code_of(code.document()) == code
    assert discovery.load(code).name == "lamp"


def test_a_bundle_cannot_take_an_installed_plugins_place(install: Path, bundles: Path) -> None:
    install.write_text(GOOD)
    assert discovery.find("lamp", bundles).folder is None


def test_bundles_are_among_what_is_suggested(bundles: Path) -> None:
    with pytest.raises(DiscoveryError, match="did you mean 'lamp'"):
        discovery.find("lamb", bundles)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("api = 1", "name: Field required"),
        (MANIFEST.replace("1", "2"), "api: Input should be 1"),
        (MANIFEST.replace("lamp_code:Lamp", "lamp_code"), "code: String should match"),
        (MANIFEST.replace('"lamp"', '"torch"'), "the plugin is called 'torch', its folder 'lamp'"),
        (MANIFEST + "more = 1", "more: Extra inputs are not permitted"),
        ("= 3", "is not TOML"),
        ("#" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_manifest_that_is_wrong_is_one_line_with_its_file(
    bundles: Path, manifest: str, message: str
) -> None:
    file = bundles / "lamp" / "plugin.toml"
    file.write_text(manifest)
    with pytest.raises(DiscoveryError) as caught:
        discovery.find("lamp", bundles)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_may_be_called_like_the_agent() -> None:
    with pytest.raises(DiscoveryError, match="no plugin may be called 'agent'"):
        discovery.find("agent")
