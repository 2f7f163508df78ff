"""The plugin's settings, and that the sample shows all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import nexus_plugins.uds
from nexus_plugins.uds.settings import LinkOptions, UdsSettings

FOLDER = Path(nexus_plugins.uds.__file__).parent


def test_a_channel_or_a_host_is_enough() -> None:
    assert UdsSettings(channel="can0").names() == ("can0",)
    assert UdsSettings(host="192.168.1.10").names() == ("192.168.1.10",)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "give `channel`, `host` or `discover`"),
        ({"channel": "can0", "host": "10.0.0.1"}, "and not both"),
        ({"channel": "can0", "links": {"a": {"channel": "can1"}}}, "and not both"),
        ({"links": {"a": {}}}, "give one of `channel`"),
        ({"host": "gateway.local"}, "use an IP address"),
        ({"channel": "can0", "requests": ["0x7E8-0x7E0"]}, "ends before it begins"),
        ({"channel": "can0", "requests": [0x800]}, "is not within 0 and 0x7ff"),
        ({"channel": "can0", "requests": ["0x7D0-0x7E7"]}, "7DF asks everybody"),
        ({"channel": "can0", "addressing": "29bit", "requests": [0x7E0]}, "within 0 and 0xff"),
        ({"channel": "can0", "requests": ["7E0"]}, "neither a number nor a range"),
        ({"channel": "can0", "responses": {"engine": 0x7E8}}, "is no identifier"),
        ({"channel": "can0", "responses": {"0x714": 0x800}}, "is not within 0 and 7FF"),
        ({"host": "10.0.0.1", "targets": ["0-0xFFFF"]}, "is more than 4096 numbers"),
        ({"channel": "can0", "p2_s": 0}, "greater than 0"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        UdsSettings.model_validate(wrong)


def test_a_link_has_what_it_does_not_say_from_the_plugin() -> None:
    settings = UdsSettings.model_validate(
        {"p2_s": 0.4, "links": {"a": {"channel": "can1"}, "b": {"host": "::1", "p2_s": 1}}}
    )

    assert settings.of("a").p2_s == 0.4
    assert (settings.of("b").p2_s, settings.of("b").host) == (1, "::1")


def test_who_is_asked() -> None:
    ranges = LinkOptions.model_validate({"channel": "c", "requests": ["0x7E0-0x7E2", 0x714, 0x7E0]})
    every = UdsSettings(channel="c").candidates()

    assert ranges.candidates() == (0x7E0, 0x7E1, 0x7E2, 0x714)
    assert len(every) == 128
    assert not {request + 8 for request in every} & set(every), "nobody's answer is a question"


def test_answers_come_eight_above_but_where_it_is_said_otherwise() -> None:
    settings = UdsSettings.model_validate({"channel": "c", "responses": {"0x714": 0x77E}})

    assert settings.identifiers(0x7E0) == (0x7E0, 0x7E8)
    assert settings.identifiers(0x714) == (0x714, 0x77E)


def test_control_units_are_named_by_how_they_answer() -> None:
    long = UdsSettings(channel="c", addressing="29bit")

    assert UdsSettings(channel="c").ecu(0x7E0) == "UDS 7E8"
    assert long.ecu(0x10) == "UDS 18DAF110"
    assert UdsSettings(host="::1").ecu(0x1010) == "DoIP 1010"


def test_the_sample_shows_every_setting() -> None:
    sample = (FOLDER / "sample.toml").read_text("utf-8")
    shown = set(re.findall(r"^(?:#: )?(\w+) = ", sample, re.MULTILINE))

    assert set(UdsSettings.model_fields) - shown == {"links"}
