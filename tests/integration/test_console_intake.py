"""What becomes of what boxes send, on both databases: each event once, marks, losses, status."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tests.integration.console_messages import (
    DEVICE,
    NOW,
    Store,
    damaged,
    message,
    presence,
    run,
    sealed,
)

from nexus_agent.protocol import Stamp, Stream, encode_events, seal
from nexus_console import commands
from nexus_console.db.engine import Database
from nexus_console.db.models import devices, events, set_aside, unreadable
from nexus_console.intake import MAX_UNREADABLE, Mark
from nexus_console.presence import Status, status_of
from nexus_console.standing import LaneState, Loss, lane_states

pytest_plugins = ["tests.integration.console_databases"]

SECOND = 1_000_000_000


def lane(store: Store, stream: Stream = Stream.EVENT, epoch: int = 1) -> LaneState:
    with store.database.read() as connection:
        found = lane_states(connection, store.rows(devices)[0]["id"])
    return next(one for one in found if (one.stream, one.epoch) == (stream, epoch))


def status(store: Store, now: int = NOW) -> Status:
    with store.database.read() as connection:
        return status_of(connection.execute(select(devices)).one(), now)


# -- segments


def test_a_segment_is_stored_and_marked(store: Store) -> None:
    outcome = store.take(message(run(1, 3)))
    assert outcome.marks == [Mark(DEVICE, 1, Stream.EVENT, 3)]
    assert store.sequences() == [1, 2, 3]
    assert [row["position"] for row in store.rows(events)] == [1, 2, 3]


def test_a_duplicate_is_absorbed_counted_and_acknowledged_again(store: Store) -> None:
    store.take(message(run(1, 3)))
    outcome = store.take(message(run(1, 3)))
    assert outcome.marks == [Mark(DEVICE, 1, Stream.EVENT, 3)]
    assert (store.sequences(), lane(store).duplicates) == ([1, 2, 3], 3)


def test_a_duplicate_within_one_batch_is_absorbed(store: Store) -> None:
    store.take(message(run(1, 3)), message(run(1, 3)))
    assert store.sequences() == [1, 2, 3]


def test_what_comes_out_of_order_is_kept_and_the_gap_shown(store: Store) -> None:
    outcome = store.take(message(run(4, 6)), message(run(9, 9)))
    assert outcome.marks[0].seq == 0
    assert store.sequences() == [4, 5, 6, 9]
    assert lane(store).gaps == [(1, 3), (7, 8)]


def test_a_filled_gap_moves_the_mark_over_what_is_kept(store: Store) -> None:
    store.take(message(run(4, 6)))
    outcome = store.take(message(run(1, 3)))
    assert outcome.marks[0].seq == 6
    assert lane(store).gaps == []


def test_of_an_overlap_only_the_new_part_is_stored(store: Store) -> None:
    store.take(message(run(1, 3)), message(run(6, 7)))
    store.take(message(run(2, 9)))
    assert store.sequences() == list(range(1, 10))
    assert lane(store).duplicates == 4


def test_streams_and_epochs_do_not_meet(store: Store) -> None:
    store.take(
        message(run(1, 2)),
        message(run(1, 2, epoch=2)),
        message(run(1, 2, stream=Stream.ALERT)),
    )
    assert store.sequences() == [1, 1, 2, 2]
    assert store.sequences(Stream.ALERT) == [1, 2]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 8)).map(lambda s: (s[0], s[0] + s[1])),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_comes_how_often_ever_is_there_once(
    store: Store, epoch: itertools.count[int], spans: list[tuple[int, int]]
) -> None:
    this = next(epoch)
    for span in spans:
        store.take(message(run(*span, epoch=this)))
    expected = sorted({n for first, last in spans for n in range(first, last + 1)})
    stored = sorted(row["seq"] for row in store.rows(events) if row["epoch"] == this)
    assert stored == expected
    assert lane(store, epoch=this).received == len(expected)


@pytest.fixture
def epoch() -> itertools.count[int]:
    return itertools.count(1)


# -- what is not as it should be


def test_an_undecodable_segment_is_kept_raw_and_does_not_stop_the_mark(store: Store) -> None:
    bad = damaged(run(1, 3))
    outcome = store.take(message(bad), message(run(4, 5)))
    assert outcome.marks[0].seq == 5
    assert store.sequences() == [4, 5]
    assert lane(store).undecodable == 1
    (kept,) = store.rows(set_aside)
    assert (kept["kind"], kept["payload"], kept["last"]) == ("undecodable", bad.payload, 3)


def test_other_content_under_the_same_numbers_is_a_conflict_and_kept(store: Store) -> None:
    other = sealed(1, "other", "content")
    store.take(message(run(1, 2)))
    store.take(message(other), message(other))
    assert (lane(store).conflicts, store.sequences()) == (1, [1, 1, 2, 2])
    assert [(row["kind"], row["payload"]) for row in store.rows(set_aside)] == [
        ("conflict", other.payload)
    ]


@pytest.mark.parametrize("data", [{"text": "nul \0 inside"}, {"text": "\U0001f697 ü"}, None])
def test_any_json_comes_back_as_it_was(store: Store, data: Any) -> None:
    store.take(message(sealed(1, data)))
    assert store.sequences() == [1]


def test_a_time_beyond_the_columns_is_set_aside(store: Store) -> None:
    store.take(message(sealed(1, 1, time=253_402_300_799 * SECOND)))
    assert (lane(store).undecodable, lane(store).high_water) == (1, 1)


def test_data_too_deep_to_be_shown_is_set_aside(store: Store) -> None:
    deep = b"[" * 400 + b"]" * 400
    tail = encode_events(
        device=DEVICE,
        source="test",
        stamp=Stamp(NOW, 0, "boot", synced=True),
        events=[("test.value", "HERE")],
    )[0].replace(b'"HERE"', deep)
    store.take(message(seal(stream=Stream.EVENT, epoch=1, first=1, tails=[tail], times=(NOW, NOW))))
    assert (lane(store).undecodable, store.sequences()) == (1, [])


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "nexus/v1/bay-1/up/data/nothing"},
        {"topic": "(not UTF-8)"},
        {"properties": [("epoch", "one")]},
        {"properties": [("epoch", "1"), ("segment", "\0")]},
        {"payload": b"short"},
    ],
)
def test_a_message_that_is_not_protocol_is_kept_as_unreadable(
    store: Store, change: dict[str, Any]
) -> None:
    outcome = store.take(replace(message(run(1, 2)), **change), message(run(1, 1)))
    assert len(store.rows(unreadable)) == 1
    assert [mark.seq for mark in outcome.marks] == [1]


def test_only_the_newest_unreadable_messages_stay(store: Store) -> None:
    bad = replace(message(run(1, 1)), payload=b"")
    store.take(*[bad] * (MAX_UNREADABLE + 5))
    assert len(store.rows(unreadable)) == MAX_UNREADABLE


# -- losses


def loss(first: int, last: int, **more: Any) -> dict[str, Any]:
    return {
        "stream": "telemetry",
        "epoch": 1,
        "first": first,
        "last": last,
        "cause": "quota",
    } | more


def declared(seq: int, *reports: Any) -> Any:
    return message(sealed(seq, *reports, event_type="delivery.loss"))


def test_a_declared_loss_moves_the_mark_and_is_shown(store: Store) -> None:
    store.take(message(run(1, 2, stream=Stream.TELEMETRY)))
    store.take(message(run(6, 7, stream=Stream.TELEMETRY)))
    outcome = store.take(declared(1, loss(3, 5)))
    assert Mark(DEVICE, 1, Stream.TELEMETRY, 7) in outcome.marks
    shown = lane(store, Stream.TELEMETRY)
    assert (shown.gaps, shown.losses) == ([], [Loss(3, 5, "quota")])


def test_only_what_has_not_come_counts_as_lost(store: Store) -> None:
    store.take(message(run(2, 3, stream=Stream.TELEMETRY)), declared(1, loss(1, 5)))
    assert lane(store, Stream.TELEMETRY).losses == [Loss(1, 1, "quota"), Loss(4, 5, "quota")]


def test_what_comes_after_it_was_called_lost_is_stored_all_the_same(store: Store) -> None:
    store.take(declared(1, loss(1, 9)))
    store.take(message(run(4, 6, stream=Stream.TELEMETRY)))
    store.take(message(run(4, 6, stream=Stream.TELEMETRY)))
    assert store.sequences(Stream.TELEMETRY) == [4, 5, 6]
    assert lane(store, Stream.TELEMETRY).losses == [Loss(1, 3, "quota"), Loss(7, 9, "quota")]


@pytest.mark.parametrize(
    "report", [loss(5, 4), loss(0, 4), loss(1, 2, stream="x"), "text", {"first": 1}]
)
def test_a_loss_report_that_does_not_fit_changes_nothing_but_is_stored(
    store: Store, report: Any
) -> None:
    store.take(declared(1, report))
    assert store.sequences() == [1]
    with store.database.read() as connection:
        assert len(lane_states(connection, 1)) == 1


# -- presence

BIRTH: dict[str, Any] = {
    "online": True,
    "session": "s1",
    "interval": 10,
    "agent": "0.1.0",
    "epoch": 1,
}


def test_a_birth_brings_a_device_online(store: Store) -> None:
    outcome = store.take(presence(**BIRTH))
    assert outcome.came_up == {DEVICE}
    assert status(store) == Status("online", None, NOW)


def test_silence_for_two_and_a_half_intervals_is_stale(store: Store) -> None:
    store.take(presence(**BIRTH))
    assert status(store, NOW + 25 * SECOND).status == "online"
    found = status(store, NOW + 26 * SECOND)
    assert (found.status, found.since) == ("stale", NOW + 25 * SECOND)
    assert found.reason == "nothing heard for 25 s; it promised a word every 10 s"


def test_data_counts_as_a_word_from_the_box(store: Store) -> None:
    store.take(presence(**BIRTH))
    store.take(message(run(1, 1), received=NOW + 20 * SECOND))
    assert status(store, NOW + 40 * SECOND).status == "online"


def test_a_kept_birth_is_no_word_from_the_box(store: Store) -> None:
    store.take(presence(**BIRTH))
    store.take(presence(**BIRTH, received=NOW + 60 * SECOND, retained=True))
    assert status(store, NOW + 60 * SECOND).status == "stale"


def test_hearing_the_same_birth_again_does_not_make_it_newer(store: Store) -> None:
    store.take(presence(**BIRTH))
    store.take(presence(**BIRTH, received=NOW + SECOND, retained=True))
    assert [row["born"] for row in store.rows(devices)] == [NOW]


def test_the_will_of_the_last_session_takes_it_offline(store: Store) -> None:
    store.take(presence(**BIRTH))
    store.take(presence(online=False, session="s1", received=NOW + 5))
    assert status(store) == Status("offline", "the connection was lost", NOW + 5)


def test_a_farewell_says_why(store: Store) -> None:
    store.take(presence(**BIRTH))
    store.take(presence(online=False, session="s1", reason="stopped"))
    assert status(store).reason == "stopped"


def test_the_will_of_an_older_session_is_left_aside(store: Store) -> None:
    store.take(presence(**BIRTH), presence(**{**BIRTH, "session": "s2"}))
    store.take(presence(online=False, session="s1"))
    assert status(store).status == "online"


def test_a_device_that_only_sent_data_is_known_but_not_called_online(store: Store) -> None:
    store.take(message(run(1, 1)))
    assert status(store).status == "stale"


def test_a_closed_epoch_shows_what_is_still_missing_of_it(store: Store) -> None:
    store.take(message(run(1, 3)))
    store.take(presence(**{**BIRTH, "epoch": 2, "closed": {1: {Stream.EVENT: 5}}}))
    shown = lane(store)
    assert (shown.closed, shown.gaps) == (True, [(4, 5)])


# -- commands


def new_command(database: Database, store: Store, expires: int = NOW + SECOND) -> Any:
    if not store.rows(devices):
        store.take(presence(**BIRTH))
    with database.write() as connection:
        device = connection.execute(select(devices)).one()
        return commands.create(
            connection, device, name="obd.scan", args={}, expires=expires, user="ana", now=NOW
        )


def results(command: Any, *states: str) -> list[dict[str, Any]]:
    return [
        {"id": command.id, "name": command.name, "state": state, "result": {"n": 1}}
        for state in states
    ]


def state_after(store: Store, command: Any, *states: str) -> str:
    store.take(message(sealed(1, *results(command, *states), event_type="command.result")))
    with store.database.read() as connection:
        found = commands.find(connection, command.device_id, command.id)
    assert found is not None
    return str(found.state)


@pytest.mark.parametrize(
    ("states", "ends"),
    [
        (["accepted"], "accepted"),
        (["accepted", "running", "succeeded"], "succeeded"),
        (["running", "accepted"], "running"),
        (["failed", "running", "succeeded"], "failed"),
        (["rejected"], "rejected"),
    ],
)
def test_results_move_a_command_forward_only(
    console_database: Database, store: Store, states: list[str], ends: str
) -> None:
    command = new_command(console_database, store)
    assert state_after(store, command, *states) == ends


def test_a_result_of_another_box_moves_nothing(console_database: Database, store: Store) -> None:
    command = new_command(console_database, store)
    data = results(command, "succeeded")
    store.take(message(sealed(1, *data, event_type="command.result"), device="bay-2"))
    with store.database.read() as connection:
        found = commands.find(connection, command.device_id, command.id)
    assert found is not None
    assert found.state == "queued"


def test_counters_rise_and_queued_commands_wait_in_their_order(
    console_database: Database, store: Store
) -> None:
    made = [new_command(console_database, store) for _ in range(3)]
    assert [command.counter for command in made] == [1, 2, 3]
    with console_database.read() as connection:
        waiting = commands.queued(connection, NOW)
    assert [command.id for command in waiting] == [command.id for command in made]


def test_at_its_expiry_an_untaken_command_ends(console_database: Database, store: Store) -> None:
    command = new_command(console_database, store)
    with console_database.write() as connection:
        assert commands.expire(connection, NOW) == []
        assert commands.expire(connection, NOW + SECOND) == [command.id]
    assert state_after(store, command, "succeeded") == "expired"


def test_a_taken_command_does_not_expire(console_database: Database, store: Store) -> None:
    command = new_command(console_database, store)
    state_after(store, command, "accepted")
    with console_database.write() as connection:
        assert commands.expire(connection, NOW + 5 * SECOND) == []
