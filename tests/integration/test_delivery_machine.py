"""The delivery contract as a state machine: whatever happens on the way, each event arrives once.

More examples than `make test` runs: NEXUS_EXAMPLES=2000.
"""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test
from tests.integration.delivery_disasters import Disasters
from tests.integration.delivery_machine import Delivery, chosen

from nexus_agent.protocol import Stream


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still here: nobody waits for company."""
    monkeypatch.setattr("nexus_agent.store.buffer.WINDOW_S", dict.fromkeys(Stream, 0.0))


def test_each_event_arrives_once_or_is_shown_as_lost() -> None:
    run_state_machine_as_test(Delivery, settings=chosen(40))


def test_only_what_was_thrown_away_is_missing() -> None:
    run_state_machine_as_test(Disasters, settings=chosen(40))
