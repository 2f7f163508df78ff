"""Events of a box whose clock was wrong get true times as soon as the console can tell them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from tests.integration.console_messages import BOOT, NOW, Store, message, presence, run, sealed

from nexus_agent.protocol import format_time
from nexus_console.clocks import RETIMED, SYNCED, TOLERANCE, UNKNOWN, UNSYNCED
from nexus_console.db.models import boots, devices, events, type_spans, untimed
from nexus_console.intake import Inbound
from nexus_console.reading import recorded
from nexus_console.remarks import Remark, remarks_of

pytest_plugins = ["tests.integration.console_databases"]

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
WRONG = NOW - 76 * HOUR
"""What the box's clock says at NOW: 3 days and 4 hours too little."""
UP = 1000 * SECOND
"""Monotonic time at NOW."""


def unsynced(first: int, *data: Any, time: int = WRONG, mono: int = UP, **more: Any) -> Inbound:
    return message(sealed(first, *data, time=time, mono=mono, synced=False, **more))


def birth(*, time: int = WRONG, mono: int = UP, synced: bool = False, **more: Any) -> Inbound:
    seconds, rest = divmod(mono, SECOND)
    fields = {"session": "s1", "boot": BOOT} | more
    return presence(
        online=True,
        time=format_time(time),
        mono=f"{seconds}.{rest // 1000:06d}",
        synced=synced,
        **fields,
    )


def times(store: Store) -> list[tuple[int, int]]:
    with store.database.read() as connection:
        rows = connection.execute(select(events).order_by(events.c.position))
        return [(row.time, row.clock) for row in rows]


def remarks(store: Store) -> list[Remark]:
    with store.database.read() as connection:
        return remarks_of(connection, store.rows(devices)[0]["id"])


def test_events_of_a_synchronised_clock_stay_as_they_are(store: Store) -> None:
    store.take(message(run(1, 2)))
    assert times(store) == [(NOW, SYNCED)] * 2
    (boot,) = store.rows(boots)
    assert (boot["boot"], boot["basis"], boot["offset"]) == (BOOT, "synced", NOW - SECOND)


def test_a_wrong_clock_is_set_right_by_when_the_birth_came(store: Store) -> None:
    store.take(birth())
    store.take(unsynced(1, "a", mono=UP - 60 * SECOND, time=WRONG - 60 * SECOND))
    assert times(store) == [(NOW - 60 * SECOND, RETIMED)]
    assert '"time":"2025-12-' in store.stored()[0].line


def test_a_clock_that_is_about_right_is_left_alone(store: Store) -> None:
    off = TOLERANCE - SECOND
    store.take(birth(time=NOW - off))
    store.take(unsynced(1, "a", time=NOW - off), unsynced(2, "b", time=NOW + off))
    assert times(store) == [(NOW - off, UNSYNCED), (NOW + off, UNSYNCED)]
    assert remarks(store) == []


def test_a_remark_says_by_how_much_and_how_many(store: Store) -> None:
    store.take(birth())
    store.take(unsynced(1, *range(1200)))
    store.take(unsynced(1201, *range(34)))
    assert [(found.kind, found.text, found.count) for found in remarks(store)] == [
        ("clock", "the clock was off by 3 d 4 h: 1,234 events re-timed", 1234)
    ]


def test_what_nobody_can_tell_waits_and_is_set_right_later(store: Store) -> None:
    store.take(unsynced(1, "a", "b"), unsynced(3, "c", time=NOW - SECOND))
    assert times(store) == [(WRONG, UNKNOWN), (WRONG, UNKNOWN), (NOW - SECOND, UNKNOWN)]
    assert len(store.rows(untimed)) == 3
    store.take(birth())
    assert times(store) == [(NOW, RETIMED), (NOW, RETIMED), (NOW - SECOND, UNSYNCED)]
    assert store.rows(untimed) == []
    assert [found.count for found in remarks(store)] == [2]


def test_the_first_synchronised_event_of_a_boot_tells_too(store: Store) -> None:
    store.take(unsynced(1, "a"))
    store.take(message(sealed(2, "b", time=NOW + SECOND, mono=UP + SECOND)))
    assert times(store) == [(NOW, RETIMED), (NOW + SECOND, SYNCED)]


def test_within_one_transaction_it_is_the_same(store: Store) -> None:
    store.take(unsynced(1, "a"), birth())
    assert times(store) == [(NOW, RETIMED)]


def test_another_boot_is_another_clock(store: Store) -> None:
    store.take(unsynced(1, "a", boot="another"))
    store.take(birth())
    assert times(store) == [(WRONG, UNKNOWN)]


def test_another_boxs_boot_of_the_same_name_is_another_clock(store: Store) -> None:
    store.take(unsynced(1, "a"))
    store.take(
        presence(device="bay-2", online=True, session="s", boot=BOOT, time=format_time(NOW),
                 mono="1.000000", synced=True)
    )  # fmt: skip
    assert times(store) == [(WRONG, UNKNOWN)]


def test_a_synchronised_clock_counts_more_than_the_time_of_arrival(store: Store) -> None:
    store.take(birth())
    true = NOW - 10 * SECOND  # the birth was under way for so long
    store.take(birth(synced=True, time=true))
    store.take(birth())
    (boot,) = store.rows(boots)
    assert (boot["basis"], boot["offset"]) == ("synced", true - UP)


def test_of_two_arrivals_the_one_that_was_under_way_for_less_counts(store: Store) -> None:
    store.take(birth(received=NOW + HOUR))
    store.take(birth(received=NOW))
    store.take(birth(received=NOW + SECOND))
    assert store.rows(boots)[0]["offset"] == NOW - UP


def test_a_birth_from_the_brokers_memory_tells_no_time(store: Store) -> None:
    store.take(birth(retained=True))
    assert store.rows(boots) == []


def test_type_spans_follow_the_times(store: Store) -> None:
    store.take(unsynced(1, "a", event_type="other.type"), unsynced(2, "b"))
    store.take(birth())
    assert {(row["first_time"], row["last_time"]) for row in store.rows(type_spans)} == {(NOW, NOW)}
    with store.database.read() as connection:
        found = list(recorded(connection, 1, "test.value", since=NOW, until=NOW))
    assert [row.seq for row in found] == [2]


@pytest.mark.parametrize(
    "odd",
    [
        {"boot": "x" * 65},
        {"boot": "tab\\u0009"},
        {"mono": 2**63},
        {"time": -(2**62)},
    ],
)
def test_what_cannot_be_reckoned_with_is_stored_as_it_came(
    store: Store, odd: dict[str, Any]
) -> None:
    store.take(unsynced(1, "a", **odd), birth())
    ((time, clock),) = times(store)
    assert clock in {UNKNOWN, RETIMED}
    assert time in {WRONG, NOW}


def test_a_rolled_back_learning_leaves_nothing(store: Store) -> None:
    store.take(unsynced(1, "a"))
    store.take_back(birth())
    assert (store.rows(boots), times(store)) == ([], [(WRONG, UNKNOWN)])
    assert len(store.rows(untimed)) == 1


moments = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 500), st.booleans(), st.integers(-4, 4)),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=moments, cuts=st.lists(st.booleans(), min_size=12, max_size=12))
def test_however_it_is_cut_the_times_end_up_the_same(
    store: Store, parts: list[tuple[int, int, bool, int]], cuts: list[bool]
) -> None:
    """Boots begin an hour apart; an unsynchronised clock is off by whole hours, or right."""
    known = {boot for boot, _, synced, _ in parts if synced}
    device = f"box-{len(store.rows(devices))}"
    expected: list[tuple[int, int]] = []
    batch: list[Inbound] = []
    for seq, ((boot, seconds, synced, off), cut) in enumerate(zip(parts, cuts, strict=False), 1):
        true = NOW + boot * HOUR + seconds * SECOND
        said = true if synced else true + off * HOUR
        segment = sealed(seq, seq, time=said, mono=seconds * SECOND, boot=f"b{boot}", synced=synced)
        batch.append(message(segment, device=device))
        if synced:
            expected.append((true, SYNCED))
        elif boot not in known:
            expected.append((said, UNKNOWN))
        else:
            expected.append((true, RETIMED if off else UNSYNCED))
        if cut:
            store.take(*batch)
            batch = []
    store.take(*batch, message(run(99, 99), device=device))
    with store.database.read() as connection:
        rows = connection.execute(
            select(events.c.time, events.c.clock)
            .join(devices, devices.c.id == events.c.device_id)
            .where(devices.c.name == device, events.c.seq < 99)
            .order_by(events.c.position)
        ).all()
    assert [tuple(row) for row in rows] == expected
