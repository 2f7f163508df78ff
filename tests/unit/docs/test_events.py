"""The event catalogue as docs/reference has it, and what may become of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from nexus_agent.protocol.catalogue import CATALOGUE, VERSION
from nexus_docs.events import breaks, schemas, sections
from nexus_docs.pages import REFERENCE

RECORDED = {
    int(file.stem): json.loads(file.read_text("utf-8"))
    for file in (REFERENCE / "catalogue").glob("*.json")
}
NOW = schemas()


def test_the_catalogue_is_the_version_that_it_says() -> None:
    advice = "raise VERSION in protocol/catalogue/kinds.py and run `make reference`"
    assert RECORDED[VERSION] == NOW, advice


def test_it_breaks_no_version_that_was_ever_recorded() -> None:
    assert sorted(RECORDED) == list(range(1, VERSION + 1))
    assert [each for old in RECORDED.values() for each in breaks(old, NOW)] == []


def test_every_type_is_told_with_its_stream_rate_and_privacy() -> None:
    told = sections()
    for name, kind in CATALOGUE.items():
        section = told.split(f"### `{name}`\n")[1].split("\n### ")[0]
        assert kind.rate in section
        assert str(kind.privacy) in section
        assert all(f"`{stream}`" in section for stream in kind.streams)


def _without_type(catalogue: dict[str, Any]) -> None:
    del catalogue["scan.diff"]


def _without_key(catalogue: dict[str, Any]) -> None:
    del catalogue["scan.diff"]["properties"]["after"]


def _other_form(catalogue: dict[str, Any]) -> None:
    catalogue["telemetry.pid"]["properties"]["pid"] = {"type": "string"}


def _other_form_within(catalogue: dict[str, Any]) -> None:
    catalogue["scan.completed"]["$defs"]["Codes"]["properties"]["codes"] = {"type": "string"}


def _obligatory(catalogue: dict[str, Any]) -> None:
    catalogue["telemetry.pid"]["required"].append("adapter")


def _optional(catalogue: dict[str, Any]) -> None:
    catalogue["telemetry.pid"]["required"].remove("quality")


def _other_words(catalogue: dict[str, Any]) -> None:
    catalogue["telemetry.pid"]["$defs"]["Quality"]["enum"].append("guessed")


@pytest.mark.parametrize(
    "change",
    [
        _without_type,
        _without_key,
        _other_form,
        _other_form_within,
        _obligatory,
        _optional,
        _other_words,
    ],
)
def test_what_an_older_console_could_not_bear_is_found(change: Any) -> None:
    changed = copy.deepcopy(NOW)
    change(changed)
    assert len(breaks(NOW, changed)) == 1


def test_types_and_keys_that_may_be_missing_may_come() -> None:
    changed = copy.deepcopy(NOW)
    changed["new.type"] = changed["scan.diff"]
    changed["telemetry.pid"]["properties"]["more"] = {"type": "string"}
    assert breaks(NOW, changed) == []
