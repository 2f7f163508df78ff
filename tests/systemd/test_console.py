"""The console's package on a real systemd: broker, box and car are outside."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import pytest_asyncio
from tests.systemd.box import exposure
from tests.systemd.conftest import MakeMachine
from tests.systemd.console import CONSOLE, SETTINGS, Console
from tests.systemd.packages import Packages

from nexus_demo import vehicles
from nexus_demo.broker import Broker, Kind
from nexus_demo.certs import Authority
from nexus_demo.fleet import Bay, Box

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

READY_S: Final = 5.0
LATER: Final = "90.1"
BAY: Final = Bay("bay-1", vehicles.MISFIRE, vin_leaves=True, may_clear=False)
STATE: Final = Path("var/lib/nexus-console")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def outside(workplace: Path) -> AsyncIterator[tuple[Broker, Authority]]:
    """A broker of its own: two consoles of one broker would answer for each other."""
    folder = workplace / "outside"
    authority = Authority(folder / "pki")
    broker = Broker(folder / "broker", authority, Kind.MOSQUITTO)
    await broker.start()
    yield broker, authority
    await broker.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def box(workplace: Path, outside: tuple[Broker, Authority]) -> AsyncIterator[Box]:
    """A box out here with an emulated car."""
    box = Box(BAY, workplace / "bay", *outside)
    await box.start()
    yield box
    await box.agent.stop()
    await box.car.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def console(
    make_machine: MakeMachine, packages: Packages, outside: tuple[Broker, Authority]
) -> Console:
    """A console that works: installed and set up as the manual says. Tests leave it so."""
    machine = await make_machine("console")
    console = Console(machine, *outside)
    package = await packages.build("console")
    await machine.boot()
    await console.take(package)
    await console.set_up()
    await console.well()
    return console


async def test_it_is_ready_within_five_seconds(console: Console) -> None:
    await console.machine.run("systemctl", "restart", CONSOLE)
    started = int(await console.machine.show(CONSOLE, "ExecMainStartTimestampMonotonic"))
    ready = int(await console.machine.show(CONSOLE, "ActiveEnterTimestampMonotonic"))
    assert (ready - started) / 1e6 <= READY_S
    assert await console.well() == {"ok": True, "broker": "connected", "database": "ok"}


async def test_the_page_is_served(console: Console) -> None:
    async with httpx.AsyncClient(base_url=console.address, trust_env=False) as http:
        page = (await http.get("/")).raise_for_status()
        for script in re.findall(r'<script[^>]+src="([^"]+)"', page.text):
            assert (await http.get(script)).is_success
        licences = (await http.get("/licenses.json")).raise_for_status()
    assert "<title>Nexus Core</title>" in page.text
    assert "svelte" in {package["name"] for package in licences.json()}


async def test_what_a_box_reads_outside_arrives(console: Console, box: Box) -> None:
    await console.more(box.id, [])
    async with console.signed_in() as signed_in:
        device = await signed_in.device(box.id)
    assert device["status"] == "online"
    assert device["adapter"]["state"] == "connected"


async def test_its_files_are_its_own(console: Console) -> None:
    """A user was made by root before the first start: no file of that may be root's."""
    owners = await console.machine.run("sh", "-c", f"stat -c '%U %a' /{STATE} /{STATE}/*.db*")
    assert set(owners.splitlines()) == {"nexus-console 750", "nexus-console 600"}


async def test_the_sandbox_is_as_tight_as_promised(console: Console) -> None:
    report = await console.machine.run("systemd-analyze", "security", "--no-pager", CONSOLE)
    assert exposure(report) <= 1.1


async def test_systemd_finds_nothing_wrong_with_it(console: Console) -> None:
    assert await console.machine.run("systemd-analyze", "verify", CONSOLE) == ""
    assert await console.machine.run("systemctl", "--failed", "--no-legend") == ""


async def test_the_journal_can_be_read(console: Console) -> None:
    entries = await console.machine.journal(CONSOLE)
    own = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "nexus-console"]
    assert any(entry["MESSAGE"].startswith("console is up") for entry in own)
    assert not [entry["MESSAGE"] for entry in own if entry["MESSAGE"].startswith("{")]


async def test_a_kill_loses_nothing(console: Console, box: Box) -> None:
    known = await console.more(box.id, [])
    before = await console.restarts()
    await console.machine.run("sh", "-c", f"kill -KILL {await console.pid()}")
    await console.started_again(before)
    after = await console.more(box.id, known)
    assert after[: len(known)] == known
    assert len(set(after)) == len(after)


async def test_one_that_hangs_is_aborted_and_started_again(console: Console, box: Box) -> None:
    await console.machine.drop_in("hang", "[Service]\nWatchdogSec=3\n", CONSOLE)
    await console.machine.run("systemctl", "restart", CONSOLE)
    await console.well()
    known = await console.events(box.id)
    before = await console.restarts()
    await console.machine.run("sh", "-c", f"kill -STOP {await console.pid()}")
    await console.started_again(before)
    await console.machine.drop_in("hang", "", CONSOLE)
    assert (await console.more(box.id, known))[: len(known)] == known


async def test_an_upgrade_keeps_data_and_settings(
    console: Console, box: Box, packages: Packages
) -> None:
    known = await console.events(box.id)
    settings = (console.machine.root / SETTINGS.lstrip("/")).read_text("utf-8")
    await console.take(await packages.build("console", LATER))
    await console.well()
    assert LATER in await console.machine.run("nexus-console", "--version")
    assert (console.machine.root / SETTINGS.lstrip("/")).read_text("utf-8") == settings
    assert (await console.more(box.id, known))[: len(known)] == known
    versions = await console.machine.run("ls", "/usr/lib/nexus-console/versions")
    assert versions.split() == [LATER]


async def test_one_that_was_stopped_stays_so_through_an_upgrade(
    console: Console, packages: Packages
) -> None:
    await console.machine.run("systemctl", "stop", CONSOLE)
    await console.take(await packages.build("console", LATER))
    assert await console.machine.show(CONSOLE, "ActiveState") == "inactive"


async def test_remove_keeps_data_and_settings(console: Console) -> None:
    root = console.machine.root
    kept = [root / STATE / "console.db", root / SETTINGS.lstrip("/")]
    before = [file.read_bytes() for file in kept]
    await console.machine.run("dpkg", "--remove", "nexus-core-console")
    assert not [*root.glob("usr/lib/nexus-console*"), *root.glob("usr/bin/nexus*")]
    assert [file.read_bytes() for file in kept] == before


async def test_purge_leaves_nothing(console: Console) -> None:
    await console.machine.run("dpkg", "--purge", "nexus-core-console")
    root = console.machine.root
    left = [
        *root.glob("usr/lib/nexus-console*"),
        *root.glob("etc/nexus-console"),
        *root.glob("var/lib/nexus-console*"),
        *root.glob("usr/bin/nexus*"),
        *root.glob("usr/lib/*/*/nexus*"),
        *root.glob("etc/systemd/system/*/nexus*"),
    ]
    assert left == []
    units = ("systemctl", "list-unit-files", "--no-legend", "nexus*")
    assert await console.machine.run(*units, check=False) == ""
