"""`systemctl reload`: SIGHUP to a real agent, and what comes of it, seen through its socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.system.test_agent_process import HANDED_OVER, Box, notify_socket

from nexus_agent.broker import BrokerAddress
from nexus_agent.cli.client import Agent
from nexus_agent.protocol import Stream
from nexus_demo.certs import Authority
from nexus_demo.peer import connected
from nexus_demo.processes import free_port
from nexus_demo.waiting import NotYet, until

Document = dict[str, Any]


@pytest.fixture
def nowhere(authority: Authority) -> BrokerAddress:
    return BrokerAddress(url=f"mqtts://127.0.0.1:{free_port()}", ca=authority.ca)


@pytest.fixture
async def box(tmp_path: Path, nowhere: BrokerAddress) -> Any:
    box = Box(tmp_path / "box", nowhere)
    yield box
    await box.process.kill()


def write(box: Box, text: str) -> None:
    """Have *text* behind the sections that every box has."""
    head = box.file.read_text("utf-8").splitlines()[:2]
    box.file.write_text("\n".join([*head, text, ""]), "utf-8")


def reload(box: Box, text: str) -> None:
    write(box, text)
    os.kill(box.process.pid, signal.SIGHUP)


async def ask(box: Box, path: str) -> Document:
    document: Document = json.loads(await asyncio.to_thread(Agent(str(box.socket)).get, path))
    return document


async def plugin(box: Box, name: str) -> Document:
    found = (await ask(box, "/v1/plugins"))["plugins"]
    return next(item for item in found if item["name"] == name)


def service(status: Document, name: str) -> Document:
    found: Document = next(item for item in status["services"] if item["name"] == name)
    return found


def said(box: Box, event: str) -> list[Document]:
    """The log's lines of one kind."""
    lines = map(json.loads, box.process.log.read_text("utf-8").splitlines())
    return [line for line in lines if line["event"] == event]


async def reloaded(box: Box, count: int = 1) -> None:
    async def check() -> None:
        box.process.check()
        if len(said(box, "settings_reloaded")) < count:
            raise NotYet(box.process.tail())

    await until("reloaded", check, within=20, every=0.02)


async def becomes(box: Box, name: str, condition: Callable[[Document], object]) -> Document:
    """The plugin once it fulfils *condition*."""
    found: Document = {}

    async def check() -> None:
        box.process.check()
        found.update(await plugin(box, name))
        if not condition(found):
            raise NotYet(f"{found}")

    await until(f"{name} is as it should be", check, within=20, every=0.02)
    return found


HOST = "[plugins.host]\ninterval_s = {}\n"


def parting(box: Box) -> str:
    return f'[plugins.parting]\nisolation = "task"\nmark = "{box.mark}"\n'


async def test_only_the_plugin_whose_section_changed_takes_it_in(box: Box) -> None:
    write(box, parting(box) + HOST.format(60))
    await box.start()
    await box.marked()
    before = await becomes(box, "host", lambda p: p["state"] == "running")
    neighbour = await becomes(box, "parting", lambda p: p["events"] == HANDED_OVER)

    reload(box, parting(box) + HOST.format(1))

    after = await becomes(box, "host", lambda p: p["events"] >= before["events"] + 3)
    assert after["since"] == before["since"], "it went on: its interval may change while it runs"
    assert after["restarts"] == 0, "a reload is no failure"
    assert (await plugin(box, "parting"))["since"] == neighbour["since"]
    await box.assert_stops()
    handed = [e.data for e in box.stored(Stream.TELEMETRY) if e.type == "parting.event"]
    assert handed == list(range(HANDED_OVER)), "the neighbour neither stopped nor began again"


async def test_plugins_are_switched_on_and_off_and_removed(box: Box) -> None:
    write(box, HOST.format(60))
    await box.start()

    reload(box, parting(box) + "[plugins.host]\nenabled = false\n")
    await box.until(
        "host is off, parting on",
        lambda s: s["plugins"] == {"host": "disabled", "parting": "running"},
    )
    reload(box, HOST.format(60))
    await box.until("and back", lambda s: s["plugins"] == {"host": "running"})
    await box.assert_stops()
    states = [e.data for e in box.stored(Stream.EVENT) if e.type == "plugin.state"]
    told = [(s["plugin"], s["state"]) for s in states if s["state"] == "disabled"]
    assert told == [("host", "disabled"), ("parting", "disabled")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("[lgo]", "lgo: unknown key; did you mean 'log'?"),
        ("[plugins.hots]", "plugins.hots: no plugin 'hots' is installed"),
        ("[plugins.host]\ninterval_s = -1", "plugins.host.interval_s: "),
        ("[plugins.fussy]", "the plugin fails to check them: ZeroDivisionError: a bug in a "),
        ("[", "is not TOML"),
        ('[metrics]\nlisten = "0.0.0.0:9464"', "must be a loopback address"),
    ],
)
async def test_wrong_settings_change_nothing_and_are_shown_until_they_are_right(
    box: Box, wrong: str, message: str
) -> None:
    write(box, parting(box))
    await box.start()
    running = await becomes(box, "parting", lambda p: p["state"] == "running")

    reload(box, '[log]\nlevel = "debug"\n' + wrong)
    await box.until("refused", lambda s: not service(s, "settings")["ok"])

    status = await ask(box, "/v1/status")
    reason = service(status, "settings")["reason"]
    assert reason.startswith(f"Settings: {box.file}: ")
    assert message in reason
    assert reason.endswith("; the old ones are in force.")
    assert {"level": "warning", "text": reason} in status["health"]
    assert status["plugins"] == {"parting": "running"}
    assert (await plugin(box, "parting"))["since"] == running["since"]
    (line,) = said(box, "settings_refused")
    assert line["error"] in reason

    reload(box, parting(box))
    await box.until("accepted", lambda s: service(s, "settings")["ok"])
    assert not [s for s in (await ask(box, "/v1/status"))["health"] if "Settings" in s["text"]]


async def test_what_needs_a_restart_is_named_and_the_rest_is_applied(box: Box) -> None:
    await box.start()
    head = box.file.read_text("utf-8")
    box.file.write_text(head.replace("127.0.0.1", "localhost"), "utf-8")
    reload(box, '[outbox]\nquota_mb = 64\n[log]\nlevel = "warning"\n')
    wanted = "Settings need a restart: broker.url, outbox.quota_mb."
    await box.until("named", lambda s: service(s, "settings")["reason"] == wanted)
    status = await ask(box, "/v1/status")
    assert status["broker"]["url"].startswith("mqtts://127.0.0.1"), "what is in force is shown"
    assert said(box, "settings_need_a_restart")[0]["keys"] == ["broker.url", "outbox.quota_mb"]

    box.file.write_text(head, "utf-8")
    reload(box, "")
    await box.until("taken back", lambda s: service(s, "settings")["ok"])


async def test_the_environment_wins_as_it_did_at_the_start(
    tmp_path: Path, nowhere: BrokerAddress
) -> None:
    box = Box(tmp_path / "box", nowhere, NEXUS_PLUGINS__HOST__INTERVAL_S="60")
    write(box, HOST.format(30))
    await box.start()
    await becomes_running(box, "host")
    reload(box, HOST.format(1))
    await reloaded(box)
    (line,) = said(box, "settings_reloaded")
    assert (line["applied"], line["plugins"]) == ([], [])
    await box.assert_stops()


async def test_the_level_of_the_log_follows(box: Box) -> None:
    await box.start()
    reload(box, '[log]\nlevel = "error"\n' + HOST.format(60))
    await becomes_running(box, "host")
    assert not said(box, "plugin_state"), "told at a level that is not written any more"
    reload(box, '[log]\nlevel = "info"\n')
    await reloaded(box)


async def becomes_running(box: Box, name: str) -> None:
    await box.until("running", lambda s: s["plugins"].get(name) == "running")


async def test_a_line_that_is_metered_no_more_lets_go_what_waits_at_once(
    tmp_path: Path, address: BrokerAddress
) -> None:
    box = Box(tmp_path / "box", address)
    write(box, "[link]\nmetered = true\n" + parting(box))
    async with connected(address) as peer:
        await box.connect()
        await box.marked()
        await box.until("it waits", lambda s: s["outbox"]["pending_events"] >= HANDED_OVER)
        assert not peer.of("box-1", "parting.event")

        reload(box, parting(box))

        await peer.until(lambda: len(peer.of("box-1", "parting.event")) == HANDED_OVER, within=10)
        await box.until("nothing waits", lambda s: s["outbox"]["pending_events"] == 0)
        await box.assert_stops()
    assert len(said(box, "link_up")) == 1, "the connection stayed"


async def test_the_service_manager_is_told_when_a_reload_begins_and_ends(
    tmp_path: Path, nowhere: BrokerAddress
) -> None:
    path = tmp_path / "notify"
    box = Box(tmp_path / "box", nowhere, NOTIFY_SOCKET=str(path))
    with notify_socket(path) as receive:
        await box.process.start()
        assert (await asyncio.to_thread(receive))["READY"] == "1"
        for text in ("", "[wrong]"):
            reload(box, text)
            while "RELOADING" not in (message := await asyncio.to_thread(receive)):
                pass
            assert message["RELOADING"] == "1"
            assert message["MONOTONIC_USEC"].isdigit()
            while "READY" not in (message := await asyncio.to_thread(receive)):
                pass
            assert message["READY"] == "1", "also where the settings were refused"
        await box.process.kill()


async def test_a_plugin_that_does_not_end_is_named_and_holds_up_nobody(box: Box) -> None:
    stubborn = f'[plugins.stubborn]\nisolation = "task"\nmark = "{box.mark}"\n'
    write(box, stubborn)
    await box.start()
    await box.marked()
    reload(box, stubborn.replace("mark =", "enabled = true\nmark =").replace('mark"', 'mark2"'))
    await box.until(
        "named",
        lambda s: any("the run before does not end" in h["text"] for h in s["health"]),
    )
    reload(box, stubborn + HOST.format(60))
    await becomes_running(box, "host")
    await box.assert_stops()


# -- metrics on loopback ---------------------------------------------------------------------------


def scrape(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


async def test_prometheus_may_ask_where_the_settings_say(box: Box) -> None:
    first, second = free_port(), free_port()
    write(box, f'[metrics]\nlisten = "127.0.0.1:{first}"\n')
    await box.start()
    assert (await asyncio.to_thread(scrape, first))["nexus_online"] == 0

    reload(box, f'[metrics]\nlisten = "127.0.0.1:{second}"\n')
    await reloaded(box)
    found = await asyncio.to_thread(scrape, second)
    assert found["nexus_process_resident_memory_bytes"] > 10_000_000
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape, first)

    reload(box, "")
    await reloaded(box, 2)
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scrape, second)


async def test_a_real_agent_has_a_value_for_every_metric_that_is_documented(box: Box) -> None:
    write(box, HOST.format(60))
    await box.start()
    await becomes_running(box, "host")
    page = (await asyncio.to_thread(Agent(str(box.socket)).get, "/metrics")).decode()
    empty = [f.name for f in text_string_to_metric_families(page) if not f.samples]
    assert not empty


async def test_a_port_in_use_is_a_problem_and_no_death(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        write(box, f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
        await box.start()
        reason = f"Prometheus cannot ask: 127.0.0.1:{port} cannot be listened at: "
        reason += "address already in use."
        await box.until("told", lambda s: service(s, "metrics")["reason"] == reason)
    reload(box, "")
    await box.until("well", lambda s: service(s, "metrics")["ok"])
    await box.assert_stops()
