"""An installed box: it starts at once, and its data arrives."""

from __future__ import annotations

import pytest
from tests.systemd.box import AGENT, Box

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

READY_S = 2.0


async def test_it_is_ready_within_two_seconds(box: Box) -> None:
    await box.machine.run("systemctl", "restart", AGENT)
    started = int(await box.machine.show(AGENT, "ExecMainStartTimestampMonotonic"))
    ready = int(await box.machine.show(AGENT, "ActiveEnterTimestampMonotonic"))
    assert (ready - started) / 1e6 <= READY_S
    await box.connected()


async def test_the_cars_data_is_at_a_console_outside(box: Box) -> None:
    event = await box.event("telemetry.pid")
    assert event["data"]["quality"] == "ok"


@pytest.mark.parametrize(
    "unit",
    ["nexus-agent", "nexus-clock", "nexus-agent-failed", "nexus-agent-trial"],
)
async def test_systemd_finds_nothing_wrong_with_the_unit(box: Box, unit: str) -> None:
    assert await box.machine.run("systemd-analyze", "verify", f"{unit}.service") == ""


async def test_nothing_has_failed(box: Box) -> None:
    assert await box.machine.run("systemctl", "--failed", "--no-legend") == ""


async def test_the_journal_can_be_read_and_searched(box: Box) -> None:
    await box.machine.run("systemctl", "restart", AGENT)
    await box.connected()
    entries = [e for e in await box.machine.journal(AGENT) if "NEXUS_PLUGIN" in e]
    assert {"host", "obd"} <= {entry["NEXUS_PLUGIN"] for entry in entries}
    assert all(entry["SYSLOG_IDENTIFIER"] == "nexus-agent" for entry in entries)
    assert not [entry["MESSAGE"] for entry in entries if entry["MESSAGE"].startswith("{")]


async def test_the_hosts_figures_come_through_the_sandbox(box: Box) -> None:
    data = (await box.event("host.metrics"))["data"]
    refused = {name: value for name, value in data.items() if "refused" in str(value)}
    assert refused == {}


async def test_groups_decide_who_may_ask(box: Box) -> None:
    for user, groups in (("eve", ""), ("reader", "nexus"), ("boss", "nexus,nexus-admin")):
        words = ["useradd", "--create-home", user, *(["--groups", groups] if groups else [])]
        await box.machine.run(*words, check=False)
    ask = ("runuser", "-u")
    assert '"state"' in await box.machine.run(*ask, "reader", "--", "nexus", "--json", "status")
    assert '"state"' in await box.machine.run(*ask, "boss", "--", "nexus", "--json", "status")
    refused = await box.machine.run(*ask, "eve", "--", "nexus", "status", check=False)
    assert "you may not use" in refused
