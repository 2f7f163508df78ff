"""Since when a service is as it is."""

from __future__ import annotations

import pytest

from nexus_agent import clock
from nexus_agent.clock import Clock
from nexus_agent.health import Problem, Since


def test_a_service_is_ill_since_it_fell_ill_whatever_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "_synchronised", lambda _: True)
    since = Since(Clock())

    def told(*problems: Problem) -> tuple[bool, str | None, str]:
        (found,) = since.document({"link": list(problems)})
        return found["ok"], found["reason"], found["since"]

    well = told()
    assert well[:2] == (True, None)
    assert told() == well
    ill = told(Problem("warning", "Not connected."))
    assert ill[:2] == (False, "Not connected.")
    assert ill[2] > well[2]
    worse = told(Problem("warning", "Not connected."), Problem("critical", "Refused."))
    assert worse == (False, "Not connected. Refused.", ill[2])
    again = told()
    assert again[:2] == (True, None)
    assert again[2] > ill[2]
