"""Finding events by type through the type spans is what a look at every event would find."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, select
from tests.integration.console_messages import NOW, Store, message, run, sealed

from nexus_agent.protocol import Stream
from nexus_console.db.models import STREAM_CODES, devices, events, type_spans
from nexus_console.eventlog import SPAN_POSITIONS
from nexus_console.intake import Inbound
from nexus_console.reading import arrived, recorded

pytest_plugins = ["tests.integration.console_databases"]

STREAMS = [Stream.ALERT, Stream.EVENT]
SECOND = 1_000_000_000

segments = st.lists(
    st.tuples(
        st.sampled_from(STREAMS),
        st.sampled_from(["a.a", "b.b", "c.c"]),
        st.integers(1, 4),
        st.integers(-50, 50),
        st.booleans(),
    ),
    max_size=12,
)


def _fill(store: Store, device: str, parts: list[Any]) -> list[Row[Any]]:
    """Send *parts*; every event of the device by position."""
    following = dict.fromkeys(STREAMS, 1)
    batch: list[Inbound] = []
    for stream, kind, count, time, cut in parts:
        segment = sealed(
            following[stream],
            *range(count),
            stream=stream,
            event_type=kind,
            time=NOW + time * SECOND,
        )
        following[stream] += count
        batch.append(message(segment, device=device))
        if cut:
            store.take(*batch)
            batch = []
    store.take(*batch, message(run(1, 1, stream=Stream.LOG), device=device))
    with store.database.read() as connection:
        return list(
            connection.execute(
                select(events)
                .join(devices, devices.c.id == events.c.device_id)
                .where(devices.c.name == device)
                .order_by(events.c.position)
            ).all()
        )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=segments,
    stream=st.none() | st.sampled_from(STREAMS),
    after=st.integers(0, 20),
    newest=st.booleans(),
    limit=st.integers(1, 8),
)
def test_by_arrival(
    store: Store,
    parts: list[Any],
    stream: Stream | None,
    after: int,
    newest: bool,
    limit: int,
) -> None:
    rows = _fill(store, f"box-{len(store.rows(devices))}", parts)
    fitting = [
        row.position
        for row in rows
        if row.type == "a.a"
        and row.position > after
        and (stream is None or row.stream == STREAM_CODES[stream])
    ]
    with store.database.read() as connection:
        found = arrived(
            connection,
            rows[0].device_id,
            "a.a",
            stream=stream,
            after=after,
            newest=newest,
            limit=limit,
        )
    assert [row.position for row in found] == (fitting[-limit:] if newest else fitting[:limit])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=segments, since=st.integers(-60, 60), length=st.integers(0, 60))
def test_by_time(store: Store, parts: list[Any], since: int, length: int) -> None:
    rows = _fill(store, f"box-{len(store.rows(devices))}", parts)
    start, end = NOW + since * SECOND, NOW + (since + length) * SECOND
    with store.database.read() as connection:
        found = recorded(connection, rows[0].device_id, "b.b", since=start, until=end)
        positions = sorted(row.position for row in found)
    assert positions == [
        row.position for row in rows if row.type == "b.b" and start <= row.time <= end
    ]


def test_lone_events_share_a_span(store: Store) -> None:
    for seq in range(1, 21):
        store.take(message(run(seq, seq)))
    (span,) = store.rows(type_spans)
    assert (span["first"], span["last"], span["count"]) == (1, 20, 20)


def test_a_rare_types_span_does_not_grow_over_many_events_of_others(store: Store) -> None:
    store.take(message(sealed(1, "x", event_type="rare.type")))
    store.take(message(run(2, SPAN_POSITIONS + 1)))
    store.take(message(sealed(SPAN_POSITIONS + 2, "y", event_type="rare.type")))
    rare = [(s["first"], s["last"]) for s in store.rows(type_spans) if s["type"] == "rare.type"]
    assert rare == [(1, 1), (SPAN_POSITIONS + 2, SPAN_POSITIONS + 2)]
