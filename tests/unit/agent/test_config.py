"""agent.toml and the plugins' own sections in it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from nexus_agent.config import AgentConfig, load_config, plugin_sections
from nexus_agent.plugin import Safety
from nexus_agent.settings import SettingsError

BROKER = '[broker]\nurl = "mqtts://broker"\n'
OBD = '[plugins.obd]\nport = "/dev/ttyUSB0"\n'
DEMANDING = """\
from nexus_agent.plugin import Plugin
class Demanding(Plugin):
    name = "demanding"
    version = description = author = "1"
    requires = ("obd", "host")
    async def run(self): ...
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


@pytest.fixture
def demanding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs the plugin `demanding`, which needs obd and host."""
    info = tmp_path / "demanding-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demanding\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nexus.plugins]\ndemanding=demanding:Demanding\n")
    (tmp_path / "demanding.py").write_text(DEMANDING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "demanding", raising=False)


def read(file: Path, text: str, environ: dict[str, str] | None = None) -> AgentConfig:
    file.write_text(BROKER + text, "utf-8")
    return load_config(file, environ or {})


def refusal(file: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        read(file, text, environ)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_broker_is_all_that_is_needed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Bay_3.Example")
    config = read(file, "")
    assert config.agent.id == "bay-3-example"
    assert config.safety.allow == (Safety.READ,)
    assert (config.privacy.vin, config.broker.ack) == ("reference", "console")
    assert plugin_sections(config, str(file)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[agent]\nid = "Bay 3"', "agent.id: "),
        ('[agent]\nid = "console"', "agent.id: "),
        ('[safety]\nallow = ["everything"]', "safety.allow.0: input should be 'read', 'clear'"),
        ('[privacy]\nvin = "yes"', "privacy.vin: input should be 'reference' or 'plain'"),
        ("[history]\nhours = inf", "history.hours: input should be a finite number, not inf"),
        ("[history]\nmegabytes = nan", "history.megabytes: input should be"),
        ("[history]\nhours = -1", "history.hours: input should be greater than or equal to 0"),
        ('[log]\nlevel = "loud"', "log.level: input should be 'debug', 'info'"),
        ("[plugins]\nobd = 3", "plugins.obd: input should be a valid dictionary, not 3"),
        (OBD + 'enabled = "maybe"', "plugins.obd.enabled: must be true or false, not 'maybe'"),
        (OBD + "enabled = 1", "plugins.obd.enabled: must be true or false, not 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(file: Path, text: str, message: str) -> None:
    assert refusal(file, text).startswith(f"{file}: {message}")


def problem(file: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """Why the first plugin of *text* cannot run."""
    config = read(file, text, environ)
    section = plugin_sections(config, str(file), environ or {})[0]
    assert section.problem is not None
    assert (section.enabled, section.settings) == (True, None)
    assert len(section.problem.splitlines()) == 1
    return section.problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[plugins.odb]", "plugins.odb: no plugin 'odb' is installed; did you mean 'obd'?"),
        ("[plugins.obd]", "plugins.obd: give `port` for one adapter, or "),
        (OBD + "prot = 1", "plugins.obd.prot: unknown key; did you mean 'port'?"),
        (OBD + "interval_s = 0", "plugins.obd.interval_s: input should be greater than 0, not 0"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_its_problem_alone(
    file: Path, text: str, message: str
) -> None:
    assert problem(file, text).startswith(f"{file}: {message}")


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("NEXUS_PLUGINS__OBD__INTERVAL_S", "soon", "plugins.obd.interval_s"),
        ("NEXUS_PLUGINS__OBD__PROT", "x", "plugins.obd.prot"),
    ],
)
def test_a_plugins_problem_names_the_variable_that_brought_it(
    file: Path, variable: str, value: str, key: str
) -> None:
    assert problem(file, OBD, {variable: value}).startswith(f"{variable}: {key}: ")


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("NEXUS_PLUGINS__OBD__ENABLED", "maybe", "plugins.obd.enabled"),
        ("NEXUS_BROKER__KEEPALIVE_S", "1", "broker.keepalive_s"),
    ],
)
def test_what_a_variable_has_wrong_is_named_with_the_variable(
    file: Path, variable: str, value: str, key: str
) -> None:
    assert refusal(file, OBD, {variable: value}).startswith(f"{variable}: {key}: ")


def test_a_plugins_section_becomes_its_own_model(file: Path) -> None:
    config = read(file, OBD, {"NEXUS_PLUGINS__OBD__INTERVAL_S": "2.5"})
    (section,) = plugin_sections(config, str(file))
    settings: Any = section.settings
    assert section.plugin is not None
    assert (section.name, section.plugin.name) == ("obd", "obd")
    assert (settings.port, settings.interval_s) == ("/dev/ttyUSB0", 2.5)


@pytest.mark.parametrize("off", ["false", '"false"', '"False"', '"0"'])
def test_what_is_switched_off_is_not_looked_at(file: Path, off: str) -> None:
    config = read(file, f"[plugins.nobody_has_it]\nenabled = {off}\nanything = 1")
    (section,) = plugin_sections(config, str(file))
    assert (section.name, section.plugin, section.settings) == ("nobody_has_it", None, None)


@pytest.mark.usefixtures("demanding")
def test_what_is_switched_off_is_not_imported(file: Path) -> None:
    read(file, "[plugins.demanding]\nenabled = false")
    assert "demanding" not in sys.modules


@pytest.mark.usefixtures("demanding")
def test_the_products_plugins_are_tasks_and_those_of_others_are_not_even_imported(
    file: Path,
) -> None:
    config = read(file, "[plugins.demanding]\nkey = 1\n[plugins.host]\n" + OBD)
    found = {section.name: section for section in plugin_sections(config, str(file))}
    assert {name: str(section.isolation) for name, section in found.items()} == {
        "demanding": "process",
        "host": "task",
        "obd": "task",
    }
    assert (found["demanding"].keys, found["demanding"].plugin) == ({"key": 1}, None)
    assert "demanding" not in sys.modules


@pytest.mark.usefixtures("demanding")
def test_the_settings_say_where_a_plugin_runs_and_what_it_may_take(file: Path) -> None:
    text = "[plugins.demanding]\nisolation = 'task'\n[plugins.host]\nisolation = 'process'\n"
    config = read(file, text + "limits = {memory_mb = 100}\n")
    demanding, host = plugin_sections(config, str(file))
    assert demanding.plugin is not None
    assert (host.plugin, host.isolation, host.limits.memory_mb) == (None, "process", 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("isolation = 'none'", "plugins.host.isolation: input should be 'task' or 'process'"),
        ("limits = {memory = 1}", "plugins.host.limits.memory: unknown key"),
        ("limits = {files = 1}", "plugins.host.limits.files: input should be greater than"),
    ],
)
def test_the_agents_own_keys_of_a_plugin_are_checked(file: Path, text: str, message: str) -> None:
    assert refusal(file, f"[plugins.host]\n{text}").startswith(f"{file}: {message}")
