"""The delivery contract as a state machine: whatever happens on the way, each event arrives once.

More examples than `make test` runs: NEXUS_EXAMPLES=2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.integration.delivery_disasters import Disasters
from tests.integration.delivery_machine import Delivery, chosen
from tests.integration.delivery_parts import Console

from nexus_agent.protocol import Stream
from nexus_console.intake import Inbound, Intake


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still here: nobody waits for company."""
    monkeypatch.setattr("nexus_agent.store.buffer.WINDOW_S", dict.fromkeys(Stream, 0.0))


class HastyConsole(Console):
    """Acknowledges before it commits."""

    def crash(self, batch: Sequence[Inbound], *, committed: bool) -> None:
        with suppress(InterruptedError), self.database.write() as connection:
            intake = Intake(connection)
            for message in batch:
                intake.take(message)
            for mark in intake.finish().marks:
                self.writer._acknowledge(mark)
            if not committed:
                raise InterruptedError


class Hasty(Delivery):
    """A control: the machine must see through such a console."""

    make_console = HastyConsole


def test_a_console_that_acknowledges_before_it_commits_is_found_out() -> None:
    with pytest.raises(AssertionError, match="was released"):
        run_state_machine_as_test(Hasty, settings=settings(chosen(300), phases=[Phase.generate]))


def test_each_event_arrives_once_or_is_shown_as_lost() -> None:
    run_state_machine_as_test(Delivery, settings=chosen(40))


def test_only_what_was_thrown_away_is_missing() -> None:
    run_state_machine_as_test(Disasters, settings=chosen(40))
