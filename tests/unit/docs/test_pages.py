"""What the reference takes from the code is what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from nexus_agent.settings import Section
from nexus_docs.configuration import settings_of
from nexus_docs.pages import pages

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_page_is_current(page: Path) -> None:
    assert page.read_text("utf-8") == PAGES[page], "run `make reference`"


class Explained(Section):
    host: str = "a"
    """Where it is,
    in one line."""


class Whole(Section):
    part: Explained
    count: int = Field(default=3, ge=1)
    """How many."""


class Mute(Section):
    port: int = 1


def test_a_setting_is_told_with_all_that_its_model_knows() -> None:
    host, count = settings_of(Whole, "x.")
    assert (host.key, host.variable) == ("x.part.host", "NEXUS_X__PART__HOST")
    assert (host.default, host.meaning) == ("default: `a`", "Where it is, in one line.")
    assert (count.kind, count.default) == ("whole number, at least 1", "default: `3`")


def test_a_setting_that_nobody_explains_is_refused() -> None:
    with pytest.raises(LookupError, match=r"Mute\.port has no docstring"):
        list(settings_of(Mute))
