"""What the box says of itself, over a real outbox: paging that gives every event exactly once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.agent.runtime.stage import section

from nexus_agent import clock
from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig, AgentSection, BrokerSection, LinkSection
from nexus_agent.plugin import Plugin, Settings
from nexus_agent.protocol import Ack, Stream, Topic
from nexus_agent.report import Reporter
from nexus_agent.runtime.context import Services, VehicleNames
from nexus_agent.runtime.states import PluginState
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.sections import PluginSection
from nexus_agent.status import history as history_module
from nexus_agent.status.history import SCAN_SEGMENTS
from nexus_agent.status.source import QueryError
from nexus_agent.store import ledger
from nexus_agent.store.database import Database
from nexus_agent.store.outbox import Outbox
from nexus_agent.store.segments import row_id
from nexus_agent.sync.policy import Policy
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic
from nexus_agent.testing import MemoryState

STREAMS = [Stream.EVENT, Stream.TELEMETRY, Stream.ALERT]
Key = tuple[str, int, int]


class Lamp(Plugin[Settings]):
    name = "lamp"
    version = "2.1"
    description = "Shines."
    author = "tests"

    async def run(self) -> None:
        return


class Box:
    """A reporter and what it reports on; `emitted` is the truth."""

    def __init__(self, database: Database, outbox: Outbox, sections: list[PluginSection]) -> None:
        self.database = database
        self.outbox = outbox
        now = Clock()
        config = AgentConfig(
            agent=AgentSection(id="box-1"), broker=BrokerSection(url="mqtts://broker")
        )
        services = Services(
            outbox, Bus(), now, lambda _: MemoryState(), VehicleNames(b"k" * 32, show_vin=False)
        )
        supervisor = Supervisor(sections, services, now, lambda _: asyncio.sleep(0))
        self.items = list(supervisor.plugins.values())
        self.reporter = Reporter(
            config, now, database, outbox, supervisor, VehicleNames(b"key", show_vin=False)
        )
        self.emitted: dict[Stream, list[int]] = {stream: [] for stream in Stream}
        self._count = 0

    async def emit(self, stream: Stream, count: int = 1, event_type: str = "test.value") -> None:
        numbers = range(self._count, self._count + count)
        self._count += count
        await self.outbox.emit("test", [(event_type, number) for number in numbers], stream)
        self.emitted[stream] += numbers

    async def page(
        self,
        after: str | None = None,
        limit: int = 1000,
        event_type: str | None = None,
        stream: Stream | None = None,
    ) -> tuple[list[dict[str, Any]], str]:
        page = await self.reporter.events(
            after=after, limit=limit, event_type=event_type, stream=stream
        )
        assert len(page["events"]) <= limit
        return page["events"], page["next"]

    async def pages(
        self, after: str, limit: int, event_type: str | None = None, stream: Stream | None = None
    ) -> list[dict[str, Any]]:
        """Everything behind *after*, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page, after = await self.page(after, limit, event_type, stream)
            if not page:
                return found
            found += page


def of(stream: Stream, events: list[dict[str, Any]]) -> list[int]:
    return [event["data"] for event in events if event["stream"] == stream]


def by_stream(events: list[dict[str, Any]]) -> dict[Stream, list[int]]:
    return {stream: of(stream, events) for stream in Stream}


@asynccontextmanager
async def opened(state_dir: Path) -> AsyncIterator[Box]:
    database = Database(state_dir)
    await database.open()
    outbox = Outbox(database, "box-1", Clock())
    await outbox.open()
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="outbox")
        yield Box(database, outbox, [section(Lamp)])
        outbox.close()
    await database.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is right, and telemetry that is committed at once."""
    monkeypatch.setattr(clock, "_synchronised", lambda _since: True)
    monkeypatch.setattr("nexus_agent.store.buffer.WINDOW_S", dict.fromkeys(Stream, 0.0))


@pytest.fixture
async def box(state_dir: Path) -> AsyncIterator[Box]:
    async with opened(state_dir) as box:
        yield box


@pytest.fixture
async def history(box: Box) -> Box:
    """Segments of every size in three streams, more than are read at a time."""
    plan = random.Random(1)
    for n in range(SCAN_SEGMENTS + 20):
        kind = "test.rare" if n % 9 == 0 else "test.value"
        await box.emit(plan.choice(STREAMS), plan.randint(1, 5), kind)
    return box


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 1000])
async def test_paging_gives_every_event_once_and_in_order(history: Box, limit: int) -> None:
    assert by_stream(await history.pages("", limit)) == history.emitted


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("stream", STREAMS)
async def test_a_stream_can_be_paged_alone(history: Box, stream: Stream, limit: int) -> None:
    found = await history.pages("", limit, stream=stream)
    assert [event["data"] for event in found] == history.emitted[stream]


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_a_type_can_be_paged_alone(history: Box, limit: int) -> None:
    everything = await history.pages("", 1000)
    rare = [event for event in everything if event["type"] == "test.rare"]
    assert by_stream(await history.pages("", limit, "test.rare")) == by_stream(rare)
    newest, _ = await history.page(None, 5, "test.rare", Stream.EVENT)
    assert [event["data"] for event in newest] == of(Stream.EVENT, rare)[-5:]


async def test_any_events_own_cursor_goes_on_behind_it_in_its_stream(history: Box) -> None:
    for n, event in enumerate(await history.pages("", 1000, stream=Stream.EVENT)):
        behind = await history.pages(event["cursor"], 1000)
        assert [e["data"] for e in behind] == history.emitted[Stream.EVENT][n + 1 :]


@pytest.mark.parametrize("limit", [1, 10, 1000])
async def test_without_a_cursor_the_newest_come_and_next_goes_on(history: Box, limit: int) -> None:
    page, following = await history.page(None, limit)
    for stream in STREAMS:
        shown = of(stream, page)
        assert shown == history.emitted[stream][len(history.emitted[stream]) - len(shown) :]
    assert (await history.page(following, limit))[0] == []

    await history.emit(Stream.ALERT)
    assert [e["data"] for e in await history.pages(following, 1)] == history.emitted[Stream.ALERT][
        -1:
    ]


async def test_what_is_committed_while_the_newest_are_read_comes_once(
    history: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = history.reporter._history._newest

    async def disturbed(stream: Stream, limit: int, event_type: str | None) -> Any:
        for one in STREAMS:
            await history.emit(one)
        page = await read(stream, limit, event_type)
        for one in STREAMS:
            await history.emit(one)
        return page

    monkeypatch.setattr(history.reporter._history, "_newest", disturbed)
    page, following = await history.page(None, 1000)
    assert by_stream(page + await history.pages(following, 1000)) == history.emitted


@pytest.mark.parametrize("start", [None, ""])
async def test_an_empty_box_has_an_empty_page_and_a_cursor(box: Box, start: str | None) -> None:
    page, following = await box.page(start)
    assert page == []
    await box.emit(Stream.EVENT)
    assert of(Stream.EVENT, (await box.page(following))[0]) == [0]


async def test_a_cursor_of_another_stream_than_is_asked_for_stays_where_it_is(box: Box) -> None:
    await box.emit(Stream.EVENT)
    assert await box.page("telemetry/1/5", stream=Stream.EVENT) == ([], "telemetry/1/5")


async def test_paging_crosses_epochs(state_dir: Path) -> None:
    async with opened(state_dir) as box:
        await box.emit(Stream.EVENT, 3)
        await box.outbox.renew("a test")
        await box.emit(Stream.EVENT, 2)
        for limit in (1, 2, 1000):
            found = await box.pages("", limit)
            assert [(e["epoch"], e["seq"]) for e in found] == [
                (1, 1),
                (1, 2),
                (1, 3),
                (2, 1),
                (2, 2),
            ]


async def test_a_damaged_segment_is_left_out_and_the_rest_is_told(box: Box) -> None:
    for _ in range(5):
        await box.emit(Stream.EVENT, 2)
    await box.database.run(
        lambda c: c.execute("UPDATE segment_event SET payload = x'00' WHERE last = 6")
    )
    readable = [n for n in box.emitted[Stream.EVENT] if n not in {4, 5}]
    assert of(Stream.EVENT, (await box.page())[0]) == readable
    assert of(Stream.EVENT, await box.pages("", 1)) == readable


@pytest.mark.parametrize(
    "cursor",
    [
        "event",
        "event/1",
        "event/1/2,",
        "event/1/-1",
        "Event/1/1",
        "other/1/1",
        "event/1/1 ",
        "event/1/٣",
        "event/999999/1",
        "event/1/99999999999999",
    ],
)
async def test_what_is_no_cursor_is_refused(box: Box, cursor: str) -> None:
    with pytest.raises(QueryError, match="is not a cursor, such as 'event/1/42'"):
        await box.page(cursor)


async def test_the_farthest_cursor_has_nothing_behind_it(box: Box) -> None:
    await box.emit(Stream.EVENT)
    assert (await box.page(f"event/{2**18 - 1}/{2**44 - 1}"))[0] == []


# -- following ---------------------------------------------------------------------------------


async def test_a_follower_gets_what_it_asked_for_as_it_is_committed(box: Box) -> None:
    await box.emit(Stream.EVENT)
    follow = box.reporter.follow(event_type="test.rare", stream=Stream.EVENT)
    async with asyncio.timeout(5), follow as live:
        await box.emit(Stream.EVENT)
        await box.emit(Stream.ALERT, event_type="test.rare")
        await box.emit(Stream.EVENT, 2, "test.rare")
        found = [await anext(live), await anext(live)]
    assert [event["data"] for event in found] == box.emitted[Stream.EVENT][-2:]
    assert found == (await box.page(None, 2, "test.rare", Stream.EVENT))[0]


async def test_for_a_follower_that_is_too_slow_it_ends_and_skips_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "FOLLOWED_SEGMENTS", 3)
    follow = box.reporter.follow(event_type=None, stream=None)
    async with asyncio.timeout(5), follow as live:
        await box.emit(Stream.EVENT)
        assert (await anext(live))["data"] == 0
        for _ in range(4):
            await box.emit(Stream.EVENT)
        assert [event["data"] async for event in live] == [1, 2, 3]


# -- status, plugins, outbox, metrics, birth -----------------------------------------------------


async def test_the_status_names_what_waits_and_how_things_are(box: Box) -> None:
    await box.emit(Stream.EVENT, 3)
    status = await box.reporter.status()
    assert (status["device"], status["state"]) == ("box-1", "offline")
    assert status["outbox"]["pending_events"] == 3
    assert status["plugins"] == {"lamp": "disabled"}
    assert status["health"] == [{"level": "ok", "text": "Everything works."}]


@pytest.mark.parametrize(
    ("state", "level", "text"),
    [
        (PluginState.FAILED, "critical", "Plugin lamp is failed: no bulb."),
        (PluginState.QUARANTINED, "critical", "Plugin lamp is quarantined: no bulb."),
        (PluginState.BACKOFF, "warning", "Plugin lamp restarts: no bulb."),
        (PluginState.RUNNING, "ok", "Everything works."),
    ],
)
async def test_a_plugins_trouble_is_a_sentence(
    box: Box, state: PluginState, level: str, text: str
) -> None:
    box.items[0].state, box.items[0].reason = state, "no bulb"
    status = await box.reporter.status()
    assert status["health"] == [{"level": level, "text": text}]


async def test_an_absent_plugin_run_has_no_times_and_no_counts_of_its_own(box: Box) -> None:
    (lamp,) = box.reporter.plugins()["plugins"]
    assert (lamp["name"], lamp["version"], lamp["state"]) == ("lamp", "2.1", "disabled")
    assert [lamp[key] for key in ("since", "reason", "last_error", "report")] == [None] * 4
    assert (lamp["events"], lamp["restarts"], lamp["commands"]) == (0, 0, [])


async def test_the_outbox_shows_what_is_acknowledged(box: Box) -> None:
    await box.emit(Stream.EVENT, 2)
    await box.emit(Stream.EVENT)
    box.outbox.sent(Stream.EVENT, row_id(1, 2))
    await box.outbox.acknowledge(Ack(epoch=1, stream=Stream.EVENT, seq=2))
    shown = await box.reporter.outbox()
    (event,) = (s for s in shown["streams"] if s["stream"] == "event")
    assert (event["next"], event["acknowledged"], event["pending_events"]) == (4, 2, 1)
    assert event["oldest"] is not None
    (alert,) = (s for s in shown["streams"] if s["stream"] == "alert")
    assert (alert["next"], alert["pending_bytes"], alert["oldest"]) == (1, 0, None)


async def scraped(box: Box) -> dict[str, float]:
    """The metrics as Prometheus reads them, by name and the values of their labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(await box.reporter.metrics())
        for sample in family.samples
    }


async def test_the_metrics_tell_what_waits_and_what_is_lost(box: Box) -> None:
    await box.emit(Stream.EVENT, 2)
    entry = ledger.Entry(Stream.LOG, 1, 3, 7, None, None, ledger.QUOTA)
    await box.database.run(lambda c: ledger.write(c, entry))
    found = await scraped(box)
    assert found["nexus_outbox_pending_events event"] == 2
    assert found["nexus_outbox_pending_segments event"] == 1
    assert 0 <= found["nexus_outbox_oldest_age_seconds event"] < 60
    assert found["nexus_outbox_oldest_age_seconds alert"] == 0
    assert found["nexus_outbox_lost_events disk quota"] == 5
    assert found["nexus_outbox_lost_events damaged on the disk"] == 0
    assert found["nexus_outbox_used_bytes"] <= found["nexus_outbox_quota_bytes"]
    assert (found["nexus_ready"], found["nexus_online"]) == (1, 0)
    assert found["nexus_clock_synchronised"] == 1


async def test_the_metrics_tell_how_the_plugins_and_the_services_are(box: Box) -> None:
    lamp = box.items[0]
    lamp.state, lamp.reason, lamp.restarts = PluginState.FAILED, "no bulb", 3
    lamp.counters.events, lamp.counters.errors = 7, 4
    found = await scraped(box)
    states = {state: found[f"nexus_plugin_state lamp {state}"] for state in PluginState}
    assert states == dict.fromkeys(PluginState, 0.0) | {PluginState.FAILED: 1.0}
    counts = [found[f"nexus_plugin_{what}_total lamp"] for what in ("restarts", "events", "errors")]
    assert counts == [3, 7, 4]
    assert found["nexus_health_problems critical"] == 1
    assert (found["nexus_service_ok supervisor"], found["nexus_service_ok outbox"]) == (0, 1)


async def test_metrics_go_on_where_the_database_cannot_be_read(box: Box) -> None:
    await box.database.shut()
    box.reporter.unopened = "the disk is full"
    found = await scraped(box)
    assert "nexus_outbox_pending_events event" not in found
    assert found["nexus_outbox_quota_bytes"] > 0
    assert found["nexus_service_ok outbox"] == 0
    await box.database.open()


async def test_every_service_is_well_or_says_why_not(box: Box) -> None:
    well = {s["name"]: (s["ok"], s["reason"]) for s in (await box.reporter.status())["services"]}
    names = "status outbox link supervisor commands housekeeping metrics settings"
    assert well == dict.fromkeys(names.split(), (True, None))

    box.reporter.unopened = "the disk is full"
    status = await box.reporter.status()
    ill = {s["name"]: s["reason"] for s in status["services"] if not s["ok"]}
    waits = dict.fromkeys(
        ("supervisor", "commands", "housekeeping"), "Waits until the database can be opened."
    )
    why = "Nothing can be stored, and no plugin runs: the disk is full."
    assert ill == {"outbox": why, **waits}
    assert status["health"] == [{"level": "critical", "text": why}], "said once"


async def watched(box: Box, **section: object) -> Traffic:
    """Have the reporter tell of a sender and its traffic."""
    policy = Policy(LinkSection.model_validate(section))
    box.reporter.traffic = Traffic(box.database, Clock(), policy)
    box.reporter.sender = Sender(box.outbox, Topic("box-1"), "console")
    await box.reporter.traffic.open()
    return box.reporter.traffic


async def test_the_outbox_says_what_is_held_and_what_was_sent(box: Box) -> None:
    traffic = await watched(box, day_mb={"log": 1, "total": 5})
    traffic.count(Stream.LOG, 1_000_000)
    shown = await box.reporter.outbox()
    held = {s["stream"]: s["held"] and s["held"]["reason"] for s in shown["streams"]}
    assert held == dict.fromkeys(map(str, Stream)) | {
        "log": "the day's 1 MB for logs are used up",
    }
    assert shown["traffic"]["day"]["budget_bytes"] == 5_000_000
    assert shown["traffic"]["month"]["budget_bytes"] is None
    assert shown["traffic"]["month"]["streams"]["log"]["bytes"] == 1_000_000
    assert shown["forecast"]["limited_by"] == "offline"


async def test_the_metrics_count_what_was_sent_and_held(box: Box) -> None:
    traffic = await watched(box, metered=True)
    traffic.count(Stream.ALERT, 300)
    traffic.count(Stream.ALERT, 200)
    found = await scraped(box)
    assert found["nexus_link_bytes_total alert"] == 500
    assert found["nexus_link_publishes_total alert"] == 2
    assert found["nexus_outbox_held alert"] == 0
    assert found["nexus_outbox_held log"] == 1
    assert found["nexus_outbox_retransmissions_total"] == 0


async def test_the_birth_document_says_where_numbering_stands(box: Box) -> None:
    await box.emit(Stream.EVENT, 2)
    birth = await box.reporter.birth("session-1")
    assert (birth.online, birth.session, birth.epoch) == (True, "session-1", 1)
    assert birth.next == dict.fromkeys(Stream, 1) | {Stream.EVENT: 3}
    assert birth.released == dict.fromkeys(Stream, 0)
    assert birth.oldest is not None
    assert birth.plugins == {"lamp": "disabled"}
