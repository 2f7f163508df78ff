"""The plugin's settings, and that the sample shows all of them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import nexus_plugins.obd
from nexus_plugins.obd.settings import ObdSettings

FOLDER = Path(nexus_plugins.obd.__file__).parent


@pytest.mark.parametrize("port", ["socket://10.0.0.5:35000", "socket://[::1]:35000", "/dev/ttyS0"])
def test_ports_are_sockets_or_devices(port: str) -> None:
    assert ObdSettings(port=port).port == port


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": "ttyUSB0"},
        {"port": "socket://host"},
        {"port": "socket://host:99999"},
        {"port": "tcp://host:1"},
        {"port": "/dev/ttyUSB0", "pids": [0x99]},
        {"port": "/dev/ttyUSB0", "interval_s": 0},
        {"port": "/dev/ttyUSB0", "intervall_s": 1},
        {},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ObdSettings.model_validate(wrong)


def test_the_sample_shows_every_setting_with_its_default() -> None:
    text = (FOLDER / "sample.toml").read_text()
    shown = "\n".join(line.removeprefix("#: ") for line in text.splitlines())
    table = tomllib.loads(shown)["plugins"]["obd"]
    table.pop("enabled")

    assert ObdSettings.model_validate(table) == ObdSettings(port=table["port"])
    assert set(table) == set(ObdSettings.model_fields)


def test_the_readme_names_every_setting() -> None:
    text = (FOLDER / "README.md").read_text()

    assert [name for name in ObdSettings.model_fields if f"`{name}`" not in text] == []
