"""The whole console against a real broker: what a box sends is seen through the API."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from sqlalchemy import text
from tests.integration.console_messages import (
    BOOT,
    DEVICE,
    NOW,
    damaged,
    message,
    presence,
    run,
    sealed,
)

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Ack, Command, Signed, Stream, Topic
from nexus_agent.settings import validate
from nexus_console import app
from nexus_console.auth import Accounts, Role
from nexus_console.config import ConsoleSettings
from nexus_console.intake import Inbound
from nexus_demo.broker import Broker
from nexus_demo.processes import free_port

TOPIC = Topic(DEVICE)
PASSWORD = "correct horse"
BIRTH: dict[str, Any] = {
    "online": True,
    "session": "s1",
    "interval": 30,
    "hostname": "shop",
    "epoch": 1,
}


class Box:
    """A box as the broker sees it."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def send(self, inbound: Inbound) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho
        if inbound.properties:
            properties.UserProperty = inbound.properties
        retain = inbound.topic == TOPIC.presence
        await self._client.publish(
            inbound.topic, inbound.payload, qos=1, retain=retain, properties=properties
        )

    async def receive(self) -> tuple[str, bytes]:
        async with asyncio.timeout(20):
            message = await anext(self._client.messages)
        assert isinstance(message.payload, bytes)
        return str(message.topic), message.payload

    async def ack(self) -> Ack:
        """The next one; a command that is not answered at once comes again in between."""
        topic = TOPIC.command
        while topic == TOPIC.command:
            topic, payload = await self.receive()
        assert topic == TOPIC.ack
        ack: Ack = Ack.decode(payload)
        return ack

    async def command(self) -> Command:
        topic, payload = await self.receive()
        assert topic == TOPIC.command
        command: Command = Command.decode(Signed.decode(payload).document.encode())
        return command


@asynccontextmanager
async def box(address: BrokerAddress) -> AsyncIterator[Box]:
    async with aiomqtt.Client(
        address.host,
        address.port,
        identifier=DEVICE,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=ssl.create_default_context(cafile=str(address.ca)),
    ) as client:
        await client.subscribe(TOPIC.ack, qos=1)
        await client.subscribe(TOPIC.command, qos=1)
        yield Box(client)


@pytest.fixture
def settings(tmp_path: Path, address: BrokerAddress) -> ConsoleSettings:
    return validate(
        ConsoleSettings,
        {
            "server": {"listen": f"127.0.0.1:{free_port()}"},
            "database": {"url": f"sqlite:///{tmp_path}/console.db"},
            "broker": {"url": address.url, "ca": address.ca},
        },
        "the test",
    )


@asynccontextmanager
async def running(settings: ConsoleSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A console, connected to its broker; the client is not logged in."""
    stop = asyncio.Event()
    url = f"http://{settings.server.listen}"
    async with asyncio.TaskGroup() as group, httpx.AsyncClient(base_url=f"{url}/api/v1") as http:
        group.create_task(app.run(settings, stop=stop), name="console")

        async def up() -> bool:
            try:
                return (await http.get(f"{url}/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await until(up)
            yield http
        finally:
            stop.set()


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def log_in(
    http: httpx.AsyncClient, settings: ConsoleSettings, role: Role = Role.OPERATOR
) -> None:
    def add() -> None:
        database = app.open_database(settings)
        Accounts(database).add(role, role, PASSWORD)
        database.close()

    await asyncio.to_thread(add)
    answer = await http.post("/login", json={"username": role, "password": PASSWORD})
    assert answer.status_code == 200
    http.headers["Authorization"] = f"Bearer {answer.json()['token']}"


async def get(http: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_how_far_back_the_boxs_outbox_reached_is_shown(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    told, oldest = "2026-11-23T10:00:00.000000Z", "2026-11-20T08:00:00.000000Z"
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(presence(**{**BIRTH, "time": told, "oldest": oldest}))
        await sender.send(message(run(1, 1)))
        await sender.ack()
        shown = await get(http, f"/devices/{DEVICE}/delivery")
        assert shown["outbox"] == {"told": told, "oldest": oldest}


async def test_what_a_box_sends_is_acknowledged_and_shown(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(presence(**BIRTH))
        await sender.send(message(run(1, 3)))
        assert await sender.ack() == Ack(
            epoch=1, stream=Stream.EVENT, seq=3, session=BIRTH["session"]
        )
        await sender.send(message(damaged(run(6, 7))))
        assert (await sender.ack()).seq == 3
        await sender.send(message(run(1, 3)))
        assert (await sender.ack()).seq == 3

        (shown,) = (await get(http, "/devices"))["devices"]
        assert (shown["id"], shown["status"], shown["hostname"]) == (DEVICE, "online", "shop")
        (stream,) = (await get(http, f"/devices/{DEVICE}/delivery"))["streams"]
        assert stream == {
            "epoch": 1,
            "stream": "event",
            "high_water": 3,
            "sealed": 7,
            "received": 3,
            "duplicates": 3,
            "gaps": [{"first": 4, "last": 5}],
            "losses": [],
            "undecodable": 1,
            "conflicts": 0,
            "closed": False,
        }


async def test_times_set_right_losses_and_remarks_are_shown(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        clock: dict[str, Any] = {
            "boot": BOOT,
            "time": "2026-01-01T00:00:00Z",
            "mono": "5.000000",
            "synced": True,
        }
        await sender.send(presence(**BIRTH, **clock, storage="The disk is full."))
        wrong = sealed(1, "x", time=NOW - 86_400 * 10**9, mono=7 * 10**9, synced=False)
        await sender.send(message(wrong))
        await sender.ack()
        loss = {"stream": "log", "epoch": 1, "first": 1, "last": 7, "cause": "disk quota"}
        times = {"first_time": "2026-01-02T10:02:00Z", "last_time": "2026-01-02T10:05:00Z"}
        kind: dict[str, Any] = {"stream": Stream.ALERT, "event_type": "delivery.loss"}
        await sender.send(message(sealed(1, loss | times, **kind)))
        await sender.ack()
        await sender.ack()
        device = f"/devices/{DEVICE}"
        assert (await get(http, device))["storage"] == "The disk is full."
        event, _ = (await get(http, f"{device}/events"))["events"]
        assert (event["clock"], event["synced"]) == ("retimed", False)
        assert event["time"] == "2026-01-01T00:00:02.000000Z"
        assert event["box_time"] == "2026-01-01T03:04:05.000000Z"
        shown = await get(http, f"{device}/delivery")
        (lost,) = next(one for one in shown["streams"] if one["stream"] == "log")["losses"]
        assert (lost["count"], lost["cause"]) == (7, "disk quota")
        assert lost["first_time"] == "2026-01-02T10:02:00.000000Z"
        assert [(one["kind"], one["text"]) for one in shown["remarks"]] == [
            ("clock", "the clock was off by 3 h 4 min: 1 events re-timed")
        ]


async def test_events_are_read_page_by_page(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 3)))
        await sender.send(message(run(1, 2, stream=Stream.ALERT, event_type="power.alarm")))
        await sender.ack()
        await sender.ack()
        path = f"/devices/{DEVICE}/events"
        first = await get(http, path, limit=3)
        rest = await get(http, path, after=first["next"])
        seen = [(e["stream"], e["seq"]) for e in first["events"] + rest["events"]]
        assert seen == [("event", 1), ("event", 2), ("event", 3), ("alert", 1), ("alert", 2)]
        assert (await get(http, path, after=rest["next"])) == {"events": [], "next": rest["next"]}
        alarms = await get(http, path, type="power.alarm")
        assert [e["seq"] for e in alarms["events"]] == [1, 2]
        only = await get(http, path, stream="alert")
        assert only == alarms
        event = alarms["events"][0]
        assert event["time"] == "2026-01-02T03:04:05.000000Z"
        assert (event["source"], event["synced"], event["data"]) == ("/bay-1/test", True, 1)


async def test_the_newest_events_come_ascending(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 3)))
        await sender.ack()
        path = f"/devices/{DEVICE}/events"
        newest = await get(http, path, limit=2, newest=True)
        assert [event["seq"] for event in newest["events"]] == [2, 3]
        assert (await get(http, path, after=newest["next"]))["events"] == []
        of_type = await get(http, path, limit=1, newest=True, type=newest["events"][0]["type"])
        assert [event["seq"] for event in of_type["events"]] == [3]


async def test_who_watches_is_told_what_has_changed_and_is_let_go_at_the_end(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        async with http.stream("GET", "/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = aiter(answer.aiter_lines())

            async def told() -> tuple[str, Any]:
                async with asyncio.timeout(20):
                    kind, data, _ = [await anext(lines) for _ in range(3)]
                return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))

            assert await told() == ("hello", {})
            await sender.send(presence(**BIRTH))
            assert await told() == ("change", {"devices": {DEVICE: ["presence"]}})
            await sender.send(message(run(1, 3)))
            assert await told() == ("change", {"devices": {DEVICE: ["event"]}})
            path = f"/devices/{DEVICE}/commands"
            given = (await http.post(path, json={"name": "obd.scan"})).json()
            assert await told() == ("change", {"devices": {DEVICE: ["commands"]}})
            assert (await get(http, path))["commands"] == [given]


async def test_a_session_is_told_to_everybody_and_a_stream_to_nobody_unknown(
    settings: ConsoleSettings,
) -> None:
    async with running(settings) as http:
        assert await get(http, "/session") == {"user": None, "role": None}
        assert (await http.get("/live")).status_code == 401
        await log_in(http, settings)
        assert await get(http, "/session") == {"user": "operator", "role": "operator"}


async def test_readings_become_series_and_nothing_is_invented(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    reading = {"ecu": "7E8", "pid": 12, "name": "engine_speed", "unit": "rpm"}
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        readings = [
            reading | {"value": 812.5, "quality": "ok"},
            reading | {"value": None, "quality": "absent"},
            reading | {"value": 7, "quality": "refused"},
            reading | {"value": 7, "quality": "fine"},
        ]
        kind: dict[str, Any] = {"stream": Stream.TELEMETRY, "event_type": "telemetry.pid"}
        await sender.send(message(sealed(1, *readings, **kind)))
        await sender.ack()
        metrics = {"cpu": {"value": 12.5, "unit": "%", "quality": "ok"}}
        kind["event_type"] = "host.metrics"
        await sender.send(message(sealed(5, metrics, **kind)))
        await sender.ack()
        found = await get(http, f"/devices/{DEVICE}/series", name="engine_speed")
        (series,) = found["series"]
        assert (series["name"], series["ecu"], series["unit"]) == ("engine_speed", "7E8", "rpm")
        assert sorted((p["quality"], p["value"]) for p in series["points"]) == [
            ("absent", None),
            ("malformed", None),
            ("ok", 812.5),
            ("refused", None),
        ]
        (cpu,) = (await get(http, f"/devices/{DEVICE}/series", type="host.metrics"))["series"]
        assert (cpu["name"], cpu["unit"], len(cpu["points"])) == ("cpu", "%", 1)


async def test_a_device_shows_its_last_vehicle_adapter_and_plugins(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(presence(**BIRTH, plugins={"obd": "starting", "host": "running"}))
        kinds = {
            "vehicle.identified": {"vehicle_ref": "v2"},
            "adapter.state": {"state": "connected"},
            "plugin.state": {"plugin": "obd", "state": "running"},
        }
        for seq, (event_type, data) in enumerate(kinds.items(), 2):
            await sender.send(message(sealed(seq, data, event_type=event_type)))
            await sender.ack()
        await sender.send(
            message(sealed(1, {"vehicle_ref": "v1"}, event_type="vehicle.identified"))
        )
        await sender.ack()
        shown = await get(http, f"/devices/{DEVICE}")
        time = "2026-01-02T03:04:05.000000Z"
        assert shown["vehicle"] == {"vehicle_ref": "v2", "time": time}
        assert shown["adapter"] == {"state": "connected", "time": time}
        assert shown["plugins"] == {"obd": "running", "host": "running"}
        scan = {"vehicle_ref": "v3", "vin_quality": "ok", "modules": []}
        await sender.send(message(sealed(5, scan, event_type="scan.completed")))
        await sender.ack()
        shown = await get(http, f"/devices/{DEVICE}")
        assert shown["vehicle"] == {"vehicle_ref": "v3", "time": time}


async def test_a_command_goes_down_and_its_result_comes_back(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 1)))
        await sender.ack()
        body = {"name": "obd.scan", "args": {"deep": True}}
        made = await http.post(f"/devices/{DEVICE}/commands", json=body)
        assert (made.status_code, made.json()["state"]) == (202, "queued")
        command = await sender.command()
        assert (command.id, command.name, command.args, command.counter) == (
            made.json()["id"],
            "obd.scan",
            {"deep": True},
            1,
        )
        result = {"id": command.id, "name": command.name, "state": "succeeded", "result": [1]}
        await sender.send(message(sealed(2, result, event_type="command.result")))
        await sender.ack()
        shown = await get(http, f"/devices/{DEVICE}/commands/{command.id}")
        assert (shown["state"], shown["result"]) == ("succeeded", [1])


async def test_a_queued_command_is_sent_again_when_the_box_comes_up(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http:
        await log_in(http, settings)
        async with box(address) as sender:
            await sender.send(message(run(1, 1)))
            await sender.ack()
        made = await http.post(f"/devices/{DEVICE}/commands", json={"name": "obd.scan"})
        async with box(address) as sender:
            await sender.send(presence(**BIRTH))
            assert (await sender.command()).id == made.json()["id"]


async def test_an_untaken_command_expires(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 1)))
        await sender.ack()
        body = {"name": "obd.scan", "expires_in_s": 1}
        made = await http.post(f"/devices/{DEVICE}/commands", json=body)
        path = f"/devices/{DEVICE}/commands/{made.json()['id']}"

        async def expired() -> bool:
            return bool((await get(http, path))["state"] == "expired")

        await until(expired)


async def test_what_was_sent_while_the_console_was_away_is_there_once(
    settings: ConsoleSettings, broker: Broker, address: BrokerAddress
) -> None:
    if broker.kind != "mosquitto":
        pytest.skip("the embedded broker keeps no session for the console")
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 3)))
        await sender.ack()
        token = http.headers["Authorization"]
    async with box(address) as sender:
        for first in range(4, 40, 3):
            await sender.send(message(run(first, first + 2)))
        async with running(settings) as http:
            http.headers["Authorization"] = token

            async def all_there() -> bool:
                (stream,) = (await get(http, f"/devices/{DEVICE}/delivery"))["streams"]
                return bool(stream["high_water"] == 39)

            await until(all_there)
            events = (await get(http, f"/devices/{DEVICE}/events", limit=1000))["events"]
    assert [event["seq"] for event in events] == list(range(1, 40))


async def test_the_console_comes_back_after_the_broker_was_killed(
    settings: ConsoleSettings, broker: Broker, address: BrokerAddress
) -> None:
    async with running(settings) as http:
        root = f"http://{settings.server.listen}/healthz"
        await broker.kill()

        async def unwell() -> bool:
            return (await http.get(root)).status_code == 503

        await until(unwell)
        assert (await http.get(root)).json()["database"] == "ok"
        await broker.start()

        async def well() -> bool:
            return (await http.get(root)).status_code == 200

        await until(well)
        async with box(address) as sender:
            await sender.send(message(run(1, 1)))
            assert (await sender.ack()).seq == 1


async def test_a_broker_that_restarts_before_the_commit_costs_nothing(
    settings: ConsoleSettings, broker: Broker, address: BrokerAddress
) -> None:
    def rename(old: str, new: str) -> None:
        database = app.open_database(settings)
        with database.write() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))
        database.close()

    async with running(settings) as http:
        root = f"http://{settings.server.listen}/healthz"
        await log_in(http, settings)
        await asyncio.to_thread(rename, "events", "away")
        async with box(address) as sender:
            await sender.send(message(run(1, 3)))

        async def refused() -> bool:
            return bool((await http.get(root)).json()["database"] == "failing")

        await until(refused)
        await broker.restart()
        await asyncio.to_thread(rename, "away", "events")

        async def well() -> bool:
            return (await http.get(root)).status_code == 200

        await until(well)
        async with box(address) as sender:
            await sender.send(message(run(4, 4)))
            while (await sender.ack()).seq < 4:
                pass
        (stream,) = (await get(http, f"/devices/{DEVICE}/delivery"))["streams"]
        assert (stream["received"], stream["gaps"]) == (4, [])


async def test_who_is_not_logged_in_sees_nothing(settings: ConsoleSettings) -> None:
    async with running(settings) as http:
        for path in ("/devices", f"/devices/{DEVICE}", f"/devices/{DEVICE}/events"):
            answer = await http.get(path)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
        body = {"username": "nobody", "password": PASSWORD}
        answers = [await http.post("/login", json=body) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429]
        assert answers[0].json() == {"error": "User name or password is wrong."}


async def test_a_viewer_may_look_but_not_command(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings, Role.VIEWER)
        await sender.send(message(run(1, 1)))
        await sender.ack()
        await get(http, f"/devices/{DEVICE}")
        answer = await http.post(f"/devices/{DEVICE}/commands", json={"name": "obd.scan"})
        assert answer.status_code == 403
        assert answer.json() == {
            "error": "Your role is viewer; giving commands needs operator or admin."
        }


async def test_bad_requests_get_one_plain_sentence(
    settings: ConsoleSettings, address: BrokerAddress
) -> None:
    async with running(settings) as http, box(address) as sender:
        await log_in(http, settings)
        await sender.send(message(run(1, 1)))
        await sender.ack()
        device = f"/devices/{DEVICE}"
        answers = [
            (404, await http.get("/devices/nobody")),
            (404, await http.get(f"{device}/commands/none")),
            (404, await http.get("/nothing")),
            (422, await http.get(f"{device}/events", params={"after": "x"})),
            (422, await http.get(f"{device}/events", params={"limit": 5000})),
            (422, await http.get(f"{device}/series", params={"from": "yesterday"})),
            (422, await http.post(f"{device}/commands", json={"name": "rm -rf"})),
            (422, await http.post(f"{device}/commands", json={"name": "obd.scan", "x": 1})),
        ]
        for status, answer in answers:
            assert answer.status_code == status, answer.text
            assert list(answer.json()) == ["error"]


async def test_the_cookie_logs_in_too_and_headers_are_strict(settings: ConsoleSettings) -> None:
    async with running(settings) as http:
        await log_in(http, settings)
        del http.headers["Authorization"]
        answer = await http.get("/devices")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert (await http.post("/logout")).status_code == 204
        assert (await http.get("/devices")).status_code == 401


async def test_the_description_names_every_endpoint(settings: ConsoleSettings) -> None:
    async with running(settings) as http:
        paths = set((await get(http, "/openapi.json"))["paths"])
    assert {path.removeprefix("/api/v1") for path in paths} == {
        "/login",
        "/logout",
        "/session",
        "/live",
        "/devices",
        "/devices/{device}",
        "/devices/{device}/events",
        "/devices/{device}/series",
        "/devices/{device}/delivery",
        "/devices/{device}/commands",
        "/devices/{device}/commands/{command}",
        "/vehicles",
        "/vehicles/{vehicle}",
        "/vehicles/{vehicle}/scans",
        "/vehicles/{vehicle}/codes/{ecu}/{code}",
        "/vehicles/{vehicle}/freeze-frames",
        "/vehicles/{vehicle}/live",
        "/healthz",
    }
