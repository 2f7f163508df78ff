"""What the API says of cars."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from tests.integration.console_cars import (
    ECU,
    REF,
    VIN,
    Boxes,
    calibrations,
    cleared,
    counters,
    fold,
    found,
    frame,
    identified,
    live,
    monitor_tests,
    readiness,
    scanned,
    silent,
)
from tests.integration.console_messages import NOW, Store

from nexus_agent.protocol import format_time
from nexus_console.api import create_api
from nexus_console.api.access import Services
from nexus_console.auth import Accounts, Attempts, Role
from nexus_console.config import RetentionSettings
from nexus_console.db.engine import Database
from nexus_console.live import Live

pytest_plugins = ["tests.integration.console_databases"]

HOUR = 3600


@pytest.fixture
def boxes(store: Store) -> Boxes:
    return Boxes(store)


@pytest.fixture
async def stranger(console_database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The API over *console_database*; nothing of it needs a broker here."""
    services = Services(
        database=console_database,
        accounts=Accounts(console_database),
        attempts=Attempts(),
        link=cast(Any, None),
        writer=cast(Any, None),
        dispatcher=cast(Any, None),
        live=Live(),
        retention=RetentionSettings(),
    )
    transport = httpx.ASGITransport(create_api(services))
    async with httpx.AsyncClient(transport=transport, base_url="http://console/api/v1") as client:
        yield client


@pytest.fixture
async def http(stranger: httpx.AsyncClient, console_database: Database) -> httpx.AsyncClient:
    Accounts(console_database).add("anna", Role.VIEWER, "correct horse")
    body = {"username": "anna", "password": "correct horse"}
    token = (await stranger.post("/login", json=body)).json()["token"]
    stranger.headers["Authorization"] = f"Bearer {token}"
    return stranger


async def ask(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def time(seconds: int) -> str:
    return format_time(NOW + seconds * 10**9)


@pytest.mark.parametrize(
    "path", ["", f"/{REF}", f"/{REF}/scans", f"/{REF}/freeze-frames", f"/{REF}/live"]
)
async def test_nobody_reads_it_without_a_log_in(
    console_database: Database, boxes: Boxes, stranger: httpx.AsyncClient, path: str
) -> None:
    boxes.tell(identified(), at=0)
    fold(console_database)
    assert (await stranger.get(f"/vehicles{path}")).status_code == 401


async def test_the_list_is_paged_newest_first_and_searched(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    for n, maker in enumerate(["Honda", "Volvo", "Honda"]):
        vin = VIN if n == 1 else None
        boxes.tell(identified(ref=f"car-{n}", vin=vin, maker=maker), at=n // 2 * HOUR)
    boxes.tell(("scan.completed", {"vehicle_ref": "car-0"}), at=0)
    fold(console_database)
    refs: list[str] = []
    page: dict[str, Any] = {"next": None}
    while page["next"] is not None or not refs:
        after = {"after": page["next"]} if refs else {}
        page = await ask(http, "/vehicles", limit=1, **after)
        refs += [car["ref"] for car in page["vehicles"]]
    assert refs == ["car-2", "car-0", "car-1"]
    assert page["unreadable"] == 1
    for search, expected in [
        ("HOND", ["car-2", "car-0"]),
        ("r-1", ["car-1"]),
        (VIN[3:9].lower(), ["car-1"]),
        ("%", []),
    ]:
        hits = (await ask(http, "/vehicles", search=search))["vehicles"]
        assert [car["ref"] for car in hits] == expected


async def test_a_vehicle_is_told_whole(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    boxes.tell(identified(vin_check="wrong"), at=0)
    boxes.tell(found("a", "P0301", "P0420"), cleared(), at=60, box="bay-2")
    boxes.tell(
        scanned(
            "b",
            {
                ECU: {"stored": ["P0301"], "pending": [], "permanent": "refused"},
                "7E9": {"stored": "absent"},
            },
        ),
        readiness(complete=False),
        calibrations(),
        counters(),
        monitor_tests(),
        at=120,
    )
    fold(console_database)
    car = await ask(http, f"/vehicles/{REF}")
    assert (car["ref"], car["vin"], car["maker"], car["model_year"]) == (REF, None, "Honda", 2003)
    assert (car["present"], car["unknown"], car["boxes"]) == (1, 0, ["bay-1", "bay-2"])
    assert car["identity"]["data"]["vin_check"] == "wrong"
    assert car["sightings"][1] == {"box": "bay-2", "first_seen": time(60), "last_seen": time(60)}
    assert [(one["code"], one["state"], one["since"]) for one in car["codes"]] == [
        ("P0301", "returned", time(120)),
        ("P0420", "cleared", time(60)),
    ]
    modules = {module["ecu"]: module["answers"] for module in car["scan"]["data"]["modules"]}
    assert modules["7E9"]["stored"]["quality"] == "absent"
    assert modules[ECU]["permanent"]["quality"] == "refused"
    assert [(one["code"], one["outcome"]) for one in car["difference"]["codes"]] == [
        ("P0301", "remaining"),
        ("P0420", "fixed"),
    ]
    assert car["readiness"]["data"]["verdicts"][0]["source"] == "40 CFR 51.357(a)(7)"
    assert car["calibrations"]["data"]["ecus"][0]["cvns"] == ["1791BC82"]
    assert car["counters"]["data"]["ecus"][0]["counters"][0]["completions"] == 7
    assert [one["quality"] for one in car["tests"]["data"]["ecus"]] == ["ok", "refused"]
    assert car["cleared"]["data"]["outcome"] == "ok"


async def test_what_nobody_has_told_is_null(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    boxes.tell(identified(), at=0)
    fold(console_database)
    car = await ask(http, f"/vehicles/{REF}")
    told = ("scan", "difference", "cleared", "readiness", "calibrations", "counters", "tests")
    assert [car[key] for key in told] == [None] * len(told)
    assert car["codes"] == []


async def test_words_of_a_newer_box_are_told_and_conclude_nothing(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    scan = found("a", "P0301").document()
    scan["modules"][0]["answers"]["historic"] = {"quality": "ok", "codes": ["P0999"]}
    scan["phase"] = "during"
    boxes.tell(
        ("vehicle.identified", identified().document() | {"vin_check": "perhaps", "wheels": 4}),
        ("scan.completed", scan),
        at=0,
    )
    fold(console_database)
    car = await ask(http, f"/vehicles/{REF}")
    assert car["identity"]["data"]["vin_check"] == "perhaps"
    assert car["scan"]["data"]["phase"] == "during"
    assert [(one["code"], one["state"]) for one in car["codes"]] == [("P0301", "confirmed")]


async def test_the_life_of_a_code_can_be_followed_to_its_events(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    boxes.tell(found("a", "P0301"), at=0)
    boxes.tell(silent("b"), at=60, box="bay-2")
    boxes.tell(found("c"), at=120)
    fold(console_database)
    life = await ask(http, f"/vehicles/{REF}/codes/{ECU}/P0301")
    assert [(one["state"], one["time"], one["box"], one["scan_id"]) for one in life["changes"]] == [
        ("confirmed", time(0), "bay-1", "a"),
        ("unknown", time(60), "bay-2", "b"),
        ("gone", time(120), "bay-1", "c"),
    ]
    assert life["changes"][1]["unsaid"] == {"stored": "did not answer"}
    events = await ask(http, "/devices/bay-1/events")
    (event,) = [one for one in events["events"] if one["cursor"] == life["changes"][2]["cursor"]]
    assert event["data"]["scan_id"] == "c"


async def test_scans_are_paged_newest_first(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    for n in range(3):
        boxes.tell(found(f"s{n}", "P0301"), at=0, box=f"bay-{n}")
    fold(console_database)
    first = await ask(http, f"/vehicles/{REF}/scans", limit=2)
    second = await ask(http, f"/vehicles/{REF}/scans", limit=2, after=first["next"])
    scans = [one["scan_id"] for one in first["scans"] + second["scans"]]
    assert sorted(scans) == ["s0", "s1", "s2"]
    assert second["next"] is None


async def test_a_freeze_frame_that_every_scan_finds_is_told_once(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    boxes.tell(frame(scan_id="a"), at=0)
    boxes.tell(frame(scan_id="b"), frame(rpm=900.0, scan_id="b"), at=60)
    fold(console_database)
    frames = (await ask(http, f"/vehicles/{REF}/freeze-frames"))["frames"]
    assert [(one["values"][0]["value"], one["first_seen"], one["last_seen"]) for one in frames] == [
        (900.0, time(60), time(60)),
        (2400.0, time(0), time(60)),
    ]


async def test_live_values_are_this_cars_newest_of_each_module(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient
) -> None:
    boxes.tell(identified(), live("engine_speed", 0x0C, 800.0, "rpm"), at=0)
    boxes.tell(
        live("oxygen_sensor_voltage", 0x14, 0.45, "V"),
        live("oxygen_sensor_trim", 0x14, -0.8, "%"),
        live("engine_speed", 0x0C, 900.0, "rpm"),
        live("vehicle_speed", 0x0D, None, "km/h"),
        at=1,
    )
    boxes.tell(live("engine_speed", 0x0C, 3000.0, "rpm", ref="another"), at=2)
    fold(console_database)
    values = (await ask(http, f"/vehicles/{REF}/live"))["values"]
    assert [(one["name"], one["value"], one["quality"], one["time"]) for one in values] == [
        ("engine_speed", 900.0, "ok", time(1)),
        ("vehicle_speed", None, "absent", time(1)),
        ("oxygen_sensor_trim", -0.8, "ok", time(1)),
        ("oxygen_sensor_voltage", 0.45, "ok", time(1)),
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/vehicles/nobody", 404),
        (f"/vehicles/{REF}/codes/{ECU}/P9999", 404),
        ("/vehicles?after=yesterday", 422),
        (f"/vehicles/{REF}/scans?after=1.2", 422),
        (f"/vehicles/{REF}/scans?after=1.2.99999999999999999999", 422),
    ],
)
async def test_what_is_not_there_is_said(
    console_database: Database, boxes: Boxes, http: httpx.AsyncClient, path: str, status: int
) -> None:
    boxes.tell(identified(), at=0)
    fold(console_database)
    answer = await http.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]
