"""New versions: under load, broken ones, and none at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest
from tests.systemd.box import AGENT, Box, gathered, numbers
from tests.systemd.conftest import Make
from tests.systemd.machine import INSTALL
from tests.systemd.packages import Packages
from tests.systemd.test_survival import finish

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

LATER: Final = "90.1"
LAST: Final = "90.2"
NEVER_READY: Final = "raise RuntimeError('this version is broken')\n"


async def take(box: Box, package: Path) -> str:
    """Install *package* over what is there."""
    shutil.copy(package, box.machine.root / "opt/next.deb")
    return await box.machine.run(*INSTALL, "/opt/next.deb")


async def is_version(box: Box, version: str) -> None:
    async def look() -> bool:
        return await box.version() == version

    await gathered(look, f"version {version} runs", 90)
    await box.connected()


async def test_an_upgrade_under_load_loses_nothing_and_keeps_the_settings(
    box: Box, packages: Packages
) -> None:
    package = await packages.build("agent", LATER)
    async with box.altered("upgrade", settings=numbers(100)):
        await box.connected()
        settings = (box.machine.root / "etc/nexus/agent.toml").read_text("utf-8")
        await take(box, package)
        await is_version(box, LATER)
        assert (box.machine.root / "etc/nexus/agent.toml").read_text("utf-8") == settings
        await finish(box)


async def test_a_version_that_stays_up_passes_its_trial(box: Box) -> None:
    async def passed() -> bool:
        return not (box.machine.root / "var/lib/nexus-upgrade/trial").exists()

    await gathered(passed, "the trial is over", 150)
    assert await box.version() == LATER


async def test_a_version_that_does_not_get_ready_is_taken_back(
    box: Box, packages: Packages
) -> None:
    before = await box.version()
    package = await packages.broken(LAST, "nexus_agent/app.py", NEVER_READY)
    await take(box, package)
    await is_version(box, before)
    event = await box.event("agent.rolled_back")
    assert (event["data"]["from"], event["data"]["to"]) == (LAST, before)
    assert event["data"]["reason"]
    current = await box.machine.run("readlink", "/usr/lib/nexus-agent/current")
    assert before in current


async def test_after_it_a_good_one_can_be_installed(box: Box, packages: Packages) -> None:
    await take(box, await packages.build("agent", "90.3"))
    await is_version(box, "90.3")


async def test_a_read_only_root_with_a_state_partition_works(
    make_box: Make, tmp_path: Path
) -> None:
    """Installed, then only /var/lib/nexus can be written; the rest is read-only for ever."""
    partition = tmp_path / "state"
    box = await make_box("box-2")
    await box.machine.boot()
    await box.install()
    await box.machine.run("systemctl", "stop", AGENT)
    await box.machine.cut()
    shutil.copytree(box.machine.root / "var/lib/nexus", partition, copy_function=shutil.copy2)
    owner = (box.machine.root / "var/lib/nexus").stat()
    for path in (partition, *partition.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    (partition).chmod(0o750)
    box.machine.options = (
        *("--read-only", f"--bind={partition}:/var/lib/nexus"),
        *("--tmpfs=/var/log", "--tmpfs=/var/tmp"),
    )
    await box.machine.boot()
    await box.connected()
    await box.drained()
    assert "ro" in (await box.machine.run("findmnt", "-no", "OPTIONS", "/")).split(",")


async def test_purge_leaves_nothing(box: Box) -> None:
    await box.machine.run("dpkg", "--purge", "nexus-core-agent")
    root = box.machine.root
    left = [
        *root.glob("usr/lib/nexus-agent*"),
        *root.glob("etc/nexus"),
        *root.glob("var/lib/nexus*"),
        *root.glob("usr/bin/nexus*"),
        *root.glob("usr/lib/systemd/system/nexus*"),
        *root.glob("etc/systemd/system/*/nexus*"),
    ]
    assert left == []
    assert (
        await box.machine.run("systemctl", "list-unit-files", "--no-legend", "nexus*", check=False)
        == ""
    )
