"""A box whose disk was restored or copied, and a console that was: nothing is mixed up or lost."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integration.console_messages import (
    DEVICE,
    NOW,
    Store,
    message,
    presence,
    run,
    sealed,
)

from nexus_agent.protocol import MAX_WANTED, Stream
from nexus_console.db.models import devices, events, segments, set_aside
from nexus_console.intake import Mark, Outcome
from nexus_console.lanes import Order
from nexus_console.remarks import Remark, remarks_of
from nexus_console.standing import LaneState, Loss, lane_states

pytest_plugins = ["tests.integration.console_databases"]


def lane(store: Store, stream: Stream = Stream.EVENT, epoch: int = 1) -> LaneState:
    with store.database.read() as connection:
        found = lane_states(connection, store.rows(devices)[0]["id"])
    return next(one for one in found if (one.stream, one.epoch) == (stream, epoch))


def remarks(store: Store) -> list[Remark]:
    with store.database.read() as connection:
        return remarks_of(connection, store.rows(devices)[0]["id"])


def birth(
    session: str = "s1",
    *,
    epoch: int = 1,
    following: int | None = None,
    released: int | None = None,
    closed: dict[int, int] | None = None,
    retained: bool = False,
    received: int = NOW,
    **more: Any,
) -> Any:
    """A birth that tells of the event stream only."""
    fields: dict[str, Any] = {"online": True, "session": session, "epoch": epoch} | more
    if following is not None:
        fields["next"] = {Stream.EVENT: following}
    if released is not None:
        fields["released"] = {Stream.EVENT: released}
    if closed is not None:
        fields["closed"] = {number: {Stream.EVENT: last} for number, last in closed.items()}
    return presence(**fields, retained=retained, received=received)


def orders(outcome: Outcome) -> list[Order]:
    return [mark.order for mark in outcome.marks if mark.order is not None]


def data(store: Store) -> dict[int, list[str]]:
    """By sequence, the data of what is stored under it, in the order of arrival."""
    found: dict[int, list[str]] = {}
    for row in store.stored():
        found.setdefault(row.seq, []).append(row.line.rpartition('"data":')[2][:-1])
    return found


# -- a disk that is another


def test_other_content_is_stored_beside_and_a_new_epoch_ordered(store: Store) -> None:
    store.take(message(run(1, 2)))
    outcome = store.take(message(sealed(1, "other", "content")))
    assert data(store) == {1: ["1", '"other"'], 2: ["2", '"content"']}
    (order,) = orders(outcome)
    assert order.above == 1
    assert order.reason == (
        "event events of epoch 1 came with other content before: its disk was restored or copied"
    )
    (found,) = remarks(store)
    assert (found.kind, found.count) == ("epoch", 1)


def test_other_content_that_comes_twice_is_stored_once(store: Store) -> None:
    store.take(message(run(1, 2)))
    store.take(message(sealed(1, "other", "content")))
    outcome = store.take(message(sealed(1, "other", "content")))
    assert data(store) == {1: ["1", '"other"'], 2: ["2", '"content"']}
    assert (lane(store).conflicts, lane(store).duplicates, len(store.rows(set_aside))) == (1, 2, 1)
    assert orders(outcome) == []


def test_other_content_cut_otherwise_when_it_comes_again_is_stored_once(store: Store) -> None:
    store.take(message(run(1, 4)))
    store.take(message(sealed(1, "a", "b")))
    store.take(message(sealed(3, "c", "d")))
    store.take(message(sealed(1, "a", "b", "c", "d")))
    assert data(store) == {1: ["1", '"a"'], 2: ["2", '"b"'], 3: ["3", '"c"'], 4: ["4", '"d"']}


def test_the_same_content_cut_otherwise_is_a_duplicate(store: Store) -> None:
    store.take(message(run(1, 3)), message(run(4, 9)))
    outcome = store.take(message(run(2, 7)))
    assert (lane(store).duplicates, lane(store).conflicts, orders(outcome)) == (6, 0, [])
    assert store.sequences() == list(range(1, 10))


def test_of_a_segment_that_is_new_in_part_the_old_part_is_compared(store: Store) -> None:
    store.take(message(run(1, 3)))
    outcome = store.take(message(sealed(2, 2, "else", "new")))
    assert data(store) == {1: ["1"], 2: ["2"], 3: ["3", '"else"'], 4: ['"new"']}
    assert (lane(store).received, lane(store).duplicates, lane(store).conflicts) == (4, 1, 1)
    assert len(orders(outcome)) == 1
    store.take(message(sealed(2, 2, "else", "new")))
    assert data(store)[3] == ["3", '"else"']


def test_within_one_transaction_the_same_is_found(store: Store) -> None:
    outcome = store.take(message(run(1, 2)), message(sealed(1, "other", "content")))
    assert data(store) == {1: ["1", '"other"'], 2: ["2", '"content"']}
    assert len(orders(outcome)) == 1


def test_a_transaction_orders_one_epoch_of_one_box(store: Store) -> None:
    store.take(message(run(1, 2)), message(run(1, 2, stream=Stream.ALERT)))
    outcome = store.take(
        message(sealed(1, "x", "y")), message(sealed(1, "x", "y", stream=Stream.ALERT))
    )
    assert len(orders(outcome)) == 1
    assert [one.conflicts for one in (lane(store), lane(store, Stream.ALERT))] == [1, 1]


def test_what_retention_has_removed_is_taken_for_a_duplicate(store: Store) -> None:
    store.take(message(run(1, 3)))
    with store.database.write() as connection:
        connection.execute(events.delete())
        connection.execute(segments.delete())
    outcome = store.take(message(sealed(1, "x", "y", "z")))
    assert (lane(store).duplicates, orders(outcome), store.sequences()) == (3, [], [])


def test_a_rolled_back_conflict_leaves_nothing(store: Store) -> None:
    store.take(message(run(1, 2)))
    before = [store.rows(table) for table in (events, segments, set_aside, devices)]
    store.take_back(message(sealed(1, "other", "content")))
    assert [store.rows(table) for table in (events, segments, set_aside, devices)] == before
    store.take(message(sealed(1, "other", "content")))
    assert data(store) == {1: ["1", '"other"'], 2: ["2", '"content"']}


def test_a_birth_behind_what_is_here_orders_an_epoch_above_all_that_are_known(
    store: Store,
) -> None:
    store.take(message(run(1, 10)), message(run(1, 2, epoch=4)))
    outcome = store.take(birth("s2", following=6, released=5))
    (mark,) = [mark for mark in outcome.marks if mark.order]
    assert (mark.epoch, mark.stream, mark.seq) == (1, Stream.EVENT, 5)
    assert mark.order is not None
    assert mark.order.above == 4
    assert [found.kind for found in remarks(store)] == ["epoch"]


def test_a_restored_box_is_never_told_of_more_than_it_has_sealed(store: Store) -> None:
    store.take(message(run(1, 10)))
    store.take(birth("s2", following=6, released=5))
    outcome = store.take(message(sealed(6, "x", "y")))
    assert [mark.seq for mark in outcome.marks] == [7]
    assert (lane(store).high_water, lane(store).sealed) == (10, 7)


def test_the_order_is_given_again_until_it_is_obeyed(store: Store) -> None:
    store.take(message(run(1, 10)))
    store.take(birth("s2", following=6))
    again = store.take(birth("s2", following=6, received=NOW + 60))
    assert len(orders(again)) == 1
    obeyed = store.take(birth("s2", epoch=2, following=1, closed={1: 5}, received=NOW + 120))
    assert orders(obeyed) == []
    assert [found.count for found in remarks(store) if found.kind == "epoch"] == [2]


@pytest.mark.parametrize("retained", [False, True])
def test_a_birth_of_the_same_session_that_was_overtaken_is_no_restored_disk(
    store: Store, retained: bool
) -> None:
    store.take(birth("s1", following=1))
    store.take(message(run(1, 10)))
    outcome = store.take(birth("s1", following=6, retained=retained))
    assert (orders(outcome), lane(store).sealed) == ([], 10)


def test_an_outdated_birth_from_the_brokers_memory_orders_nothing(store: Store) -> None:
    store.take(message(run(1, 10)))
    outcome = store.take(birth("s2", following=6, retained=True))
    assert orders(outcome) == []
    outcome = store.take(birth("s2", following=11))
    assert (orders(outcome), lane(store).sealed) == ([], 10)


def test_an_older_birth_that_comes_again_orders_nothing(store: Store) -> None:
    store.take(birth("s1", following=1, boot="b", mono="10.000000"))
    store.take(message(run(1, 10)))
    store.take(birth("s2", following=11, boot="b", mono="20.000000"))
    outcome = store.take(birth("s1", following=1, boot="b", mono="10.000000"))
    assert orders(outcome) == []


# -- a console that lacks what the box has let go of


def test_what_was_let_go_of_and_is_not_here_is_asked_for(store: Store) -> None:
    store.take(message(run(11, 20)), message(run(31, 40)))
    outcome = store.take(birth(following=51, released=40))
    (mark,) = outcome.marks
    assert (mark.seq, mark.want) == (0, ((1, 10), (21, 30)))
    assert lane(store).losses == []
    assert [found.text for found in remarks(store)] == [
        "asked the box for 20 event events again: this console did not have them"
    ]


def test_a_gap_that_the_box_has_not_let_go_of_is_not_asked_for(store: Store) -> None:
    store.take(message(run(1, 10)), message(run(15, 20)))
    outcome = store.take(birth(following=21, released=10))
    assert [mark.want for mark in outcome.marks] == [()]


def test_of_closed_epochs_all_is_asked_for_up_to_their_end(store: Store) -> None:
    outcome = store.take(birth(epoch=3, following=1, released=0, closed={1: 5, 2: 0}))
    assert outcome.marks == [Mark(DEVICE, 1, Stream.EVENT, 0, "s1", ((1, 5),))]


def test_the_oldest_are_asked_for_first_and_not_too_many_at_once(store: Store) -> None:
    store.take(*[message(run(n, n)) for n in range(2, 2 * MAX_WANTED + 9, 2)])
    outcome = store.take(birth(following=400, released=300))
    (mark,) = outcome.marks
    assert (len(mark.want), mark.want[0], mark.want[-1]) == (MAX_WANTED, (1, 1), (127, 127))


def test_what_comes_of_it_heals_the_gap_and_what_is_gone_is_declared(store: Store) -> None:
    store.take(birth(following=31, released=30))
    store.take(message(run(11, 20)))
    assert lane(store).high_water == 0
    gone = {"stream": "event", "epoch": 1, "cause": "no longer in the history"}
    reports = [{**gone, "first": 1, "last": 10}, {**gone, "first": 21, "last": 30}]
    store.take(message(sealed(1, *reports, stream=Stream.ALERT, event_type="delivery.loss")))
    assert (lane(store).high_water, lane(store).gaps) == (30, [])
    again = store.take(birth(following=31, released=30))
    assert [mark.want for mark in again.marks if mark.stream is Stream.EVENT] in ([], [()])


def test_a_birth_from_the_brokers_memory_asks_for_nothing(store: Store) -> None:
    outcome = store.take(birth(following=31, released=30, retained=True))
    assert [mark.want for mark in outcome.marks] == [()]


def test_a_birth_that_brings_nothing_new_is_answered_with_nothing(store: Store) -> None:
    store.take(message(run(1, 10)))
    store.take(birth(following=11, released=10))
    assert store.take(birth(following=11, released=10, received=NOW + 60)).marks == []


def test_a_stream_that_was_never_used_takes_no_room(store: Store) -> None:
    store.take(birth(following=1, released=0))
    with store.database.read() as connection:
        assert lane_states(connection, 1) == []


# -- two disks under one name


def marks(outcome: Outcome, stream: Stream = Stream.EVENT) -> list[int]:
    return [mark.seq for mark in outcome.marks if mark.stream is stream]


def test_what_another_disk_delivered_is_not_acknowledged_to_this_one(store: Store) -> None:
    store.take(birth("s1", following=11, released=0), message(run(1, 10), session="s1"))
    answer = store.take(birth("s2", following=11, released=4))
    assert marks(answer) == [4]
    assert [mark.session for mark in answer.marks] == ["s2"]


def test_what_the_new_session_sends_too_is_acknowledged(store: Store) -> None:
    store.take(birth("s1", following=11, released=0), message(run(1, 10), session="s1"))
    store.take(birth("s2", following=11, released=4))
    assert marks(store.take(message(run(9, 10), session="s2"))) == [4]
    assert marks(store.take(message(run(5, 8), session="s2"))) == [10]
    assert store.sequences() == list(range(1, 11))


def test_what_came_before_any_birth_is_acknowledged_to_nobody(store: Store) -> None:
    """An answer that names no session would be for whoever has the line: for a clone, say."""
    assert marks(store.take(message(run(1, 10), session="s1"))) == [0]
    store.take(birth("s1", following=11, released=0))
    assert marks(store.take(message(run(1, 10), session="s1"))) == [10]


def test_a_late_birth_of_another_boot_does_not_keep_the_present_session_out(store: Store) -> None:
    """Nothing tells which of two boots was first; but the present one goes on saying more."""
    store.take(birth("s4", following=1, released=0, boot="b4", mono="0.449"))
    store.take(birth("s3", following=1, released=0, boot="b3", mono="0.950"))
    assert marks(store.take(message(run(1, 10), session="s4"))) == [0]
    store.take(birth("s4", following=11, released=0, boot="b4", mono="30.1"))
    answer = store.take(message(run(1, 10), session="s4"))
    assert marks(answer) == [10]
    assert answer.marks[0].session == "s4"


def test_a_past_session_does_not_come_back_by_what_it_has_said_before(store: Store) -> None:
    for session, boot, mono in (
        ("s3", "b3", "0.950"),
        ("s4", "b4", "0.449"),
        ("s3", "b3", "0.950"),
    ):
        store.take(birth(session, following=11, released=0, boot=boot, mono=mono))
    assert store.take(message(run(1, 10), session="s4")).marks[0].session == "s4"


def test_what_another_disk_declared_lost_is_not_acknowledged_to_this_one(store: Store) -> None:
    store.take(birth("s1", following=11, released=0), message(run(1, 3), session="s1"))
    gone = {"stream": "event", "epoch": 1, "first": 4, "last": 10, "cause": "disk quota"}
    told = sealed(1, gone, stream=Stream.ALERT, event_type="delivery.loss")
    assert marks(store.take(message(told, session="s1"))) == [10]
    assert marks(store.take(birth("s2", following=11, released=3))) == [3]
    assert marks(store.take(message(run(4, 10), session="s2"))) == [10]


def test_a_message_of_an_overtaken_session_is_kept_and_not_acknowledged(store: Store) -> None:
    store.take(birth("s1", following=1, released=0))
    store.take(birth("s2", following=4, released=0))
    late = store.take(message(run(1, 6), session="s1"))
    assert [(mark.seq, mark.session) for mark in late.marks] == [(0, "s2")]
    assert store.sequences() == [1, 2, 3, 4, 5, 6]
    assert marks(store.take(message(run(1, 3), session="s2"))) == [3]


def test_the_birth_of_a_session_that_is_over_changes_nothing(store: Store) -> None:
    """A broker that was killed comes back with messages of half an hour ago."""
    old = birth("s1", following=3, released=0)
    store.take(old, message(run(1, 2), session="s1"))
    store.take(birth("s2", following=8, released=2), message(run(3, 7), session="s2"))
    again = store.take(old)
    assert (again.marks, remarks(store)) == ([], [])
    assert marks(store.take(message(run(8, 9), session="s2"))) == [9]


def test_what_is_in_doubt_and_never_comes_is_asked_for(store: Store) -> None:
    """The box had let go of it while a newer database was here."""
    store.take(birth("s1", following=11, released=0), message(run(1, 10), session="s1"))
    store.take(birth("s2", following=11, released=4, retained=True))
    store.take(message(run(11, 12), session="s2"))
    assert wants(store.take(message(run(11, 12), session="s2"))) == [((5, 10),)]
    store.take(message(run(5, 7), session="s2"))
    gone = {"stream": "event", "epoch": 1, "first": 8, "last": 10, "cause": "no longer here"}
    told = sealed(1, gone, stream=Stream.ALERT, event_type="delivery.loss")
    assert marks(store.take(message(told, session="s2"))) == [12]
    assert lane(store).losses == []


def test_a_closed_epoch_that_the_box_still_sends_is_in_doubt_too(store: Store) -> None:
    store.take(birth("s1", following=11, released=0), message(run(1, 10), session="s1"))
    behind: Any = {"closed_released": {1: {Stream.EVENT: 6}}}
    answer = store.take(birth("s2", epoch=2, following=1, released=0, closed={1: 10}, **behind))
    assert [(mark.epoch, mark.seq) for mark in answer.marks] == [(1, 6)]


# -- losses with their times


def test_a_loss_has_its_times_and_its_cause(store: Store) -> None:
    report = {
        "stream": "telemetry",
        "epoch": 1,
        "first": 3,
        "last": 9,
        "first_time": "2026-01-02T10:02:00Z",
        "last_time": "2026-01-02T10:05:00Z",
        "cause": "disk quota",
    }
    store.take(message(sealed(1, report, stream=Stream.ALERT, event_type="delivery.loss")))
    (loss,) = lane(store, Stream.TELEMETRY).losses
    assert (loss.count, loss.cause) == (7, "disk quota")
    assert loss.first_time is not None
    assert loss.last_time is not None
    assert loss.last_time - loss.first_time == 180 * 1_000_000_000
    store.take(message(run(3, 4, stream=Stream.TELEMETRY)))
    assert lane(store, Stream.TELEMETRY).losses == [Loss(5, 9, "disk quota", None, loss.last_time)]


def test_a_box_that_sends_again_above_a_gap_is_asked_for_what_is_in_it(store: Store) -> None:
    """A console that was restored beneath a connected box hears of no birth for a long time."""
    store.take(message(run(1, 2)))
    assert wants(store.take(message(run(6, 8)))) == []
    assert wants(store.take(message(run(6, 8)))) == [((3, 5),)]
    store.take(message(run(3, 5)))
    assert wants(store.take(message(run(6, 8)))) == []


def wants(outcome: Outcome) -> list[tuple[tuple[int, int], ...]]:
    return [mark.want for mark in outcome.marks if mark.want]
