"""console.toml: what is wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nexus_agent.settings import SettingsError, load
from nexus_console.__main__ import main
from nexus_console.config import ConsoleSettings

GOOD = """
[database]
url = "sqlite:////tmp/c.db"
[broker]
url = "mqtts://localhost:8883"
"""
ROOT = Path(__file__).parents[3]


def settings(tmp_path: Path, text: str) -> ConsoleSettings:
    file = tmp_path / "console.toml"
    file.write_text(text)
    return load(ConsoleSettings, file, {})


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    found = settings(tmp_path, GOOD)
    assert found.server.address == ("127.0.0.1", 8080)
    assert found.broker.client_id == "console"


def test_the_sample_is_valid() -> None:
    found = load(ConsoleSettings, ROOT / "config" / "console.toml", {})
    assert found.server.listen == "127.0.0.1:8080"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[server]\nlisten = "8080"' + GOOD, "server.listen: must be host:port"),
        (GOOD.replace("sqlite:////tmp/c.db", "sqlite:///c.db"), "must name an absolute path"),
        (GOOD.replace("sqlite:////tmp/c.db", "mysql://x"), "database.url: must be sqlite"),
        (GOOD.replace("mqtts", "mqtt"), "broker.url: must be mqtts://host:port"),
        (GOOD.replace("[broker]", "[broker]\nclientid = 'x'"), "did you mean 'client_id'?"),
        ("", "is missing"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=r".*") as caught:
        settings(tmp_path, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["run"], ["user", "list"]])
def test_wrong_settings_end_with_exit_code_2(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "console.toml"
    file.write_text("[database]\nurl = 1\n")
    result = CliRunner().invoke(main, [*command, "--config", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"nexus-console: {file}: ")
    assert result.stderr.count("\n") == 1


def test_an_unusable_database_ends_with_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "console.toml"
    file.write_text(GOOD.replace("/tmp/c.db", f"{tmp_path}/no/such/folder/c.db"))
    result = CliRunner().invoke(main, ["run", "--config", str(file)])
    assert result.exit_code == 2
    assert "database.url: cannot be used: unable to open database file" in result.stderr
