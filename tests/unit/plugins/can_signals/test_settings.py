"""What `[plugins.can_signals]` takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from nexus_plugins.can_signals.settings import CanSignalsSettings, matches

DBC: Any = [{"file": "/etc/nexus/drive.dbc"}]
CHANNEL: Any = {"channel": "can0", "dbc": DBC}


def model(**given: Any) -> CanSignalsSettings:
    return CanSignalsSettings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "give at least one"),
        ({"channels": {f"c{n}": CHANNEL for n in range(4)}}, "at most 3 channels"),
        ({"channels": {"a": {"channel": "can0", "dbc": []}}}, "at least 1 item"),
        ({"channels": {"Bay 1": CHANNEL}}, "pattern"),
        ({"replays": {"a": {"file": "/a.txt", "dbc": DBC}}}, "logs that can be read end in .asc"),
        (
            {"replays": {"a": {"file": "/a.asc", "dbc": DBC, "speed": "fast", "repeat": True}}},
            "never rest",
        ),
        (
            {"channels": {"a": CHANNEL}, "replays": {"a": {"file": "/a.asc", "dbc": DBC}}},
            "'a' is a channel and a replay",
        ),
        ({"channels": {"a": CHANNEL}, "max_rate": 11}, "less than or equal to 10"),
        ({"channels": {"a": CHANNEL}, "dead_band": float("nan")}, "finite number"),
    ],
)
def test_what_cannot_work_is_refused_in_words(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        model(**given)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*", True),
        ("Engine.*", True),
        ("*Speed", True),
        ("EngineSpeed", True),
        ("enginespeed", False),
    ],
)
def test_a_pattern_means_the_signal_or_its_message_and_the_signal(
    pattern: str, wanted: bool
) -> None:
    assert matches(pattern, "Engine", "EngineSpeed") is wanted


def test_what_a_rule_leaves_open_is_as_for_all() -> None:
    settings = model(
        channels={"a": CHANNEL}, max_rate=2, hold_s=5, rules=[{"match": "Speed", "dead_band": 3}]
    )
    assert settings.limits_of("Engine", "Speed") == (3, 0.5, 5)
    assert settings.limits_of("Engine", "Torque") == (0, 0.5, 5)
