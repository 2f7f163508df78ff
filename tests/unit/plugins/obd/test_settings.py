"""The plugin's settings, and that the sample shows all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import nexus_plugins.obd
from nexus_plugins.obd.settings import ObdSettings

FOLDER = Path(nexus_plugins.obd.__file__).parent


@pytest.mark.parametrize(
    "port",
    [
        "socket://10.0.0.5:35000",
        "socket://[::1]:35000",
        "/dev/ttyS0",
        "ble://AA:BB:CC:DD:EE:FF",
        "ble://OBDII dongle",
    ],
)
def test_ports_are_sockets_devices_or_ble(port: str) -> None:
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
        {"port": "ble://"},
        {"port": "ble:// "},
        {"port": "/dev/ttyUSB0", "rates": {"0x99": 1}},
        {"port": "/dev/ttyUSB0", "rates": {"coolant": 1}},
        {"port": "/dev/ttyUSB0", "rates": {"0x05": 0}},
        {"port": "/dev/ttyUSB0", "rates": 5},
        {"port": "/dev/ttyUSB0", "adapters": {"one": {"port": "/dev/ttyUSB1"}}},
        {"adapters": {"One": {"port": "/dev/ttyUSB1"}}},
        {"adapters": {"one": {"interval_s": 1}}},
        {"adapters": {"one": {"port": "/dev/ttyUSB1", "adapters": {}}}},
        {"adapters": {"one": {"port": "/dev/ttyUSB1"}, "two": {"port": "/dev/ttyUSB1"}}},
        {},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ObdSettings.model_validate(wrong)


def test_rates_name_pids_as_toml_writes_them() -> None:
    text = "[rates]\n0x05 = 30\n13 = 0.5"
    settings = ObdSettings.model_validate({"port": "/dev/ttyUSB0", **tomllib.loads(text)})

    assert settings.rates == {0x05: 30, 0x0D: 0.5}


@pytest.mark.parametrize(
    ("pid", "interval_s", "rates", "expected"),
    [
        (0x0C, 0.5, {}, 0.5),
        (0x05, 0.5, {}, 10),
        (0x2F, 0.5, {}, 60),
        (0x05, 20, {}, 20),
        (0x05, 20, {0x05: 0.1}, 0.1),
    ],
)
def test_what_changes_slowly_is_read_slowly(
    pid: int, interval_s: float, rates: dict[int, float], expected: float
) -> None:
    settings = ObdSettings(port="/dev/ttyUSB0", interval_s=interval_s, rates=rates)

    assert settings.interval_of(pid) == expected


def test_an_only_adapter_is_named_by_its_port() -> None:
    settings = ObdSettings(port="/dev/ttyUSB0", timeout_s=3)

    assert settings.names() == ("/dev/ttyUSB0",)
    only = settings.of("/dev/ttyUSB0")
    assert (only.port, only.timeout_s) == ("/dev/ttyUSB0", 3)


def test_each_of_several_adapters_has_what_it_says_and_the_rest_from_all() -> None:
    adapters = {
        "bay-1": {"port": "/dev/ttyUSB0"},
        "bay-2": {"port": "/dev/ttyUSB1", "timeout_s": 9, "pids": [0x0C], "interval_s": 1.0},
    }
    settings = ObdSettings.model_validate({"timeout_s": 3, "interval_s": 7, "adapters": adapters})

    assert settings.names() == ("bay-1", "bay-2")
    one, two = settings.of("bay-1"), settings.of("bay-2")
    assert (one.port, one.timeout_s, one.interval_s) == ("/dev/ttyUSB0", 3, 7)
    assert (two.timeout_s, two.pids, two.interval_s, two.baudrate) == (9, (0x0C,), 1, 38_400)


def test_the_sample_shows_every_setting_with_its_default() -> None:
    text = (FOLDER / "sample.toml").read_text()
    shown = "\n".join(line.removeprefix("#: ") for line in text.splitlines())
    table = tomllib.loads(shown)["plugins"]["obd"]
    table.pop("enabled")

    assert ObdSettings.model_validate(table) == ObdSettings(port=table["port"])
    assert set(table) == set(ObdSettings.model_fields)


def test_the_samples_examples_are_right() -> None:
    text = (FOLDER / "sample.toml").read_text()
    _, of_pids, adapters = text.split("#: [plugins.obd.")
    examples = "\n".join(
        line.removeprefix("# ")
        for line in (of_pids + adapters).splitlines()
        if re.match(r"# (\[|\w+ = )", line)
    )
    table = tomllib.loads(examples)

    rates = {"0x05": table["0x05"]}
    assert ObdSettings.model_validate({"port": "/dev/ttyUSB0", "rates": rates}).rates == {5: 30}
    several = ObdSettings.model_validate(table["plugins"]["obd"])
    assert several.of("bay-2").interval_s == 5


def test_the_readme_names_every_setting() -> None:
    text = (FOLDER / "README.md").read_text()

    assert [name for name in ObdSettings.model_fields if f"`{name}`" not in text] == []
