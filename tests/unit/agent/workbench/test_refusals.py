"""Wrong settings that are made from a schema are wrong for the model, whatever its types."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from nexus_agent.plugin import Settings
from nexus_agent.workbench.refusals import wrong_settings


class Colour(enum.StrEnum):
    RED = "red"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1


class Everything(Settings):
    text: str = "a"
    choice: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    number: float = 1.0
    whole: Annotated[int, Field(ge=0)] = 1
    switch: bool = True
    maybe: int | None = None
    either: int | str = 1
    items: tuple[int, ...] = ()
    table: dict[str, int] = Field(default_factory=dict)
    part: Part = Part()
    parts: list[Part] = Field(default_factory=list)
    path: Path = Path()
    secret: SecretStr = SecretStr("a")
    moment: datetime | None = None
    span: timedelta = timedelta()
    anything: Any = None


WRONG = list(wrong_settings(Everything.model_json_schema()))


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value}" for name, value in WRONG])
def test_the_model_refuses_what_is_made_to_be_wrong(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Everything.model_validate({name: value})


def test_every_setting_but_the_one_that_may_be_anything_is_tried() -> None:
    assert {name for name, _ in WRONG} == {*Everything.model_fields, "nonsense"} - {"anything"}


def test_a_free_text_is_no_wrong_choice_but_a_wrong_number() -> None:
    texts = {name for name, value in WRONG if value == "nonsense"}

    assert {"choice", "colour", "number", "maybe", "items"} <= texts
    assert not {"text", "either", "path", "secret"} & texts
