"""Series as a chart asks for them: how fine they are, and what a point of a period says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from tests.integration.console_history import DAY, SECOND, START, add_device, add_events, pid

from nexus_agent.protocol import Stream, format_time
from nexus_console import retention
from nexus_console.api import create_api
from nexus_console.api.access import Services
from nexus_console.auth import Accounts, Attempts, Role
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.live import Live
from nexus_console.rollups import HOUR, MINUTE, Rollups

pytest_plugins = ["tests.integration.console_databases"]

NOW = START + 20 * DAY


@pytest.fixture
async def http(
    console_database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """The API over *console_database* at NOW; nothing of it needs a broker here."""
    accounts = Accounts(console_database)
    accounts.add("anna", Role.VIEWER, "correct horse")
    services = Services(
        database=console_database,
        accounts=accounts,
        attempts=Attempts(),
        link=cast(Any, None),
        writer=cast(Any, None),
        dispatcher=cast(Any, None),
        live=Live(),
        retention=RetentionSettings(raw_days=10, minute_days=15),
    )
    transport = httpx.ASGITransport(create_api(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/v1") as client:
        body = {"username": "anna", "password": "correct horse"}
        token = (await client.post("/login", json=body)).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        monkeypatch.setattr("nexus_console.api.series.time.time_ns", lambda: NOW)
        yield client


def roll_up(database: Database) -> None:
    for _ in Rollups(database).turn():
        pass


async def ask(http: httpx.AsyncClient, **query: Any) -> Any:
    for key in ("from", "to"):
        if key in query:
            query[key] = format_time(query[key])
    answer = await http.get("/devices/bay-1/series", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("query", "resolution"),
    [
        ({}, "raw"),
        ({"to": NOW}, "raw"),
        ({"from": NOW - 6 * HOUR}, "raw"),
        ({"from": NOW - 9 * DAY, "to": NOW - 9 * DAY + HOUR}, "raw"),
        ({"from": NOW - 11 * DAY, "to": NOW - 11 * DAY + HOUR}, "minute"),
        ({"from": NOW - 7 * HOUR}, "minute"),
        ({"from": NOW - 14 * DAY}, "minute"),
        ({"from": NOW - 14 * DAY - HOUR}, "hour"),
        ({"from": NOW - 16 * DAY, "to": NOW - 16 * DAY + HOUR}, "hour"),
        ({"from": NOW - HOUR, "resolution": "hour"}, "hour"),
        ({"from": START, "resolution": "raw"}, "raw"),
    ],
)
async def test_points_are_as_fine_as_the_asked_time_allows(
    console_database: Database, http: httpx.AsyncClient, query: dict[str, Any], resolution: str
) -> None:
    add_device(console_database)
    assert (await ask(http, **query))["resolution"] == resolution


async def test_a_period_tells_mean_extremes_count_and_quality(
    console_database: Database, http: httpx.AsyncClient
) -> None:
    device = add_device(console_database)
    second = START + MINUTE
    told = [
        *(pid(1), pid(2, time=START + SECOND), pid(None, "absent")),
        *(pid(None, quality, time=second) for quality in ("refused", "absent", "refused")),
        pid("P", name="gear"),
    ]
    add_events(console_database, device, told)
    roll_up(console_database)
    answer = await ask(http, resolution="minute")
    engine, gear = answer["series"]
    none = {"value": None, "minimum": None, "maximum": None}
    assert engine == {
        "name": "engine_speed",
        "ecu": "7E8",
        "unit": "rpm",
        "points": [
            {
                "time": format_time(START),
                "value": 1.5,
                "minimum": 1.0,
                "maximum": 2.0,
                "count": 3,
                "quality": "ok",
            },
            {"time": format_time(second), **none, "count": 3, "quality": "refused"},
        ],
    }
    assert gear["points"] == [{"time": format_time(START), **none, "count": 1, "quality": "ok"}]
    [hour, _] = (await ask(http, resolution="hour"))["series"]
    assert [(p["value"], p["count"]) for p in hour["points"]] == [(1.5, 6)]


async def test_raw_points_keep_their_keys_and_order(
    console_database: Database, http: httpx.AsyncClient
) -> None:
    device = add_device(console_database)
    late = pid(1, time=START)
    told = [pid(n, time=START + n * SECOND) for n in (2, 3)]
    add_events(console_database, device, told)
    add_events(console_database, device, [late, pid(4, time=START + 4 * SECOND)])
    add_events(console_database, device, [pid("x", "refused", stream=Stream.EVENT, time=START - 1)])
    answer = await ask(http, name="engine_speed")
    [series] = answer["series"]
    assert [point["value"] for point in series["points"]] == [None, 1, 2, 3, 4]
    assert series["points"][1] == {"time": format_time(START), "value": 1, "quality": "ok"}
    assert (answer["resolution"], answer["truncated"]) == ("raw", False)


@pytest.mark.parametrize("resolution", ["raw", "minute"])
async def test_the_newest_points_of_each_series_are_kept_and_the_rest_is_said(
    console_database: Database, http: httpx.AsyncClient, resolution: str
) -> None:
    device = add_device(console_database)
    times = [START + n * MINUTE for n in range(5)]
    told = [pid(n, name=name, time=time) for n, time in enumerate(times) for name in "ab"]
    add_events(console_database, device, told)
    roll_up(console_database)
    answer = await ask(http, resolution=resolution, limit=2)
    shown = [[point["value"] for point in series["points"]] for series in answer["series"]]
    assert (shown, answer["truncated"]) == ([[3, 4], [3, 4]], True)
    query = {"from": times[1] + SECOND, "to": times[3]}
    answer = await ask(http, resolution=resolution, name="b", **query)
    [series] = answer["series"]
    # The minute that `from` lies in is whole.
    first = 1 if resolution == "minute" else 2
    assert [point["value"] for point in series["points"]] == list(range(first, 4))
    assert not answer["truncated"]


async def test_what_was_deleted_lives_on_in_its_sums(
    console_database: Database, http: httpx.AsyncClient
) -> None:
    device = add_device(console_database)
    add_events(console_database, device, [pid(7, time=NOW - 12 * DAY)])
    roll_up(console_database)
    for _ in retention.turn(console_database, RetentionSettings(raw_days=10), NOW):
        pass
    query = {"from": NOW - 12 * DAY, "to": NOW - 12 * DAY + HOUR}
    assert (await ask(http, **query, resolution="raw"))["series"] == []
    [series] = (await ask(http, **query))["series"]
    assert [point["value"] for point in series["points"]] == [7]
