"""The delivery contract as a state machine: whatever happens on the way, each event arrives once.

`make test` runs the same few examples each time; NEXUS_EXAMPLES=2000 searches. Disks that are
thrown away, copied and damaged in one life are searched only: not all that finds is understood yet.
"""

from __future__ import annotations

import os
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

search = pytest.mark.skipif(
    "NEXUS_EXAMPLES" not in os.environ,
    reason="a search, not a gate yet: NEXUS_EXAMPLES=40 runs it, and it may take minutes",
)


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


@search
def test_a_console_that_acknowledges_before_it_commits_is_found_out() -> None:
    with pytest.raises(AssertionError, match="was released"):
        run_state_machine_as_test(Hasty, settings=settings(chosen(300), phases=[Phase.generate]))


def test_each_event_arrives_once_or_is_shown_as_lost() -> None:
    run_state_machine_as_test(Delivery, settings=chosen(25))


@search
def test_only_what_was_thrown_away_is_missing() -> None:
    run_state_machine_as_test(Disasters, settings=chosen(40))
