"""What happens to a box: kills, blocked loops, power cuts, full disks, clocks, no broker."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import pytest
from tests.systemd.box import AGENT, Box, gathered, numbers, probe

from nexus_demo.waiting import NotYet, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

STALLS: Final = int(os.environ.get("NEXUS_STALLS", "2"))
"""How often the loop is blocked; 20 is the full count."""
FAILED: Final = "nexus-agent-failed.service"
FAKE: Final = """\
Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 "FAKETIME=@1970-01-01 00:00:30"
"""


async def started_again(box: Box, restarts: int) -> None:
    async def again() -> bool:
        return await box.restarts() > restarts

    await gathered(again, "systemd has started it again", 60)
    await box.connected()


async def test_it_is_back_after_a_kill(box: Box) -> None:
    before = await box.restarts()
    await box.machine.run("sh", "-c", f"kill -KILL {await box.pid()}")
    await started_again(box, before)


async def test_a_blocked_loop_is_aborted_and_explained(box: Box) -> None:
    """Each time: seen by the watchdog, started again, its stack at the console."""
    trigger = box.machine.root / "var/lib/nexus/stall"
    unit = "WatchdogSec=3\n[Unit]\nStartLimitIntervalSec=0\n"
    async with box.altered("stall", unit, probe("stall")):
        for number in range(STALLS):
            await box.connected()
            if number:  # it has a process of its own, where it blocks nobody
                await box.machine.run("nexus", "plugin", "restart", "probe")
            await runs_as(box, "task")
            before, pid = await box.restarts(), await box.pid()
            await box.machine.run("touch", "/var/lib/nexus/stall")
            await started_again(box, before)
            assert not trigger.exists(), f"stall {number}"
            assert await box.pid() != pid
            await box.connected()
            await runs_as(box, "process")
        event = await box.event("agent.crashed", lambda e: "SIGABRT" in str(e["data"]))
        assert "nexus_systemd_probe" in str(event["data"]["stack"])


async def runs_as(box: Box, isolation: str) -> None:
    async def looked() -> bool:
        found = (await box.plugins())["probe"]
        return bool(found["isolation"] == isolation and found["state"] != "starting")

    await gathered(looked, f"the probe runs as {isolation}", 60)


async def test_a_plugin_that_always_fails_harms_nobody(box: Box) -> None:
    async with box.altered("fail", settings=probe("fail")):
        await box.connected()

        async def failed() -> bool:
            found = (await box.plugins())["probe"]
            return bool(found["restarts"] >= 2 or found["state"] == "quarantined")

        await gathered(failed, "the probe has failed again and again", 60)
        assert (await box.plugins())["host"]["state"] == "running"
        assert await box.restarts() == 0


async def test_settings_that_are_wrong_do_not_leave_it_dead(box: Box) -> None:
    """It fails, the helper waits, and starts it again for as long as it takes."""
    good = (box.machine.root / "etc/nexus/agent.toml").read_text("utf-8")
    box.machine.write("/etc/nexus/agent.toml", "[agent]\nid = 7\n", mode=0o640)
    try:
        await box.machine.run("systemctl", "restart", AGENT, check=False)

        async def tried() -> bool:
            return await box.machine.show(FAILED, "ActiveState") in {"activating", "active"}

        await gathered(tried, "the helper runs", 60)
    finally:
        box.machine.write("/etc/nexus/agent.toml", good, mode=0o640)
        await box.machine.run("chown", "-R", "root:nexus", "/etc/nexus")
    await box.connected(within=120)


async def test_a_power_cut_loses_nothing_that_was_promised(box: Box) -> None:
    async with box.altered("load", settings=numbers(100)):
        await box.connected()
        await asyncio.sleep(2)
        await box.machine.cut()
        await box.machine.boot()
        await box.connected()
        await finish(box)


async def test_a_broker_that_is_away_is_waited_for(box: Box) -> None:
    async with box.altered("away", settings=numbers(50)):
        await box.connected()
        await box.fleet.broker.stop()

        async def waits() -> bool:
            return await box.waiting() > 100

        await gathered(waits, "events wait", 60)
        await box.fleet.broker.start()
        await finish(box)


async def test_a_full_disk_is_told_and_survived(box: Box) -> None:
    """Its state on a disk of its own, of 48 MB, which somebody else fills."""
    disk = "/var/lib/nexus-disk"
    await box.machine.run("mkdir", "--parents", disk)
    await box.machine.run("mount", "-t", "tmpfs", "-o", "size=48M,mode=0700", "none", disk)
    await box.machine.run("chown", "nexus:nexus", disk)
    settings = numbers(50).replace("/var/lib/nexus/", f"{disk}/")
    more = f"ReadWritePaths={disk}\nEnvironment=NEXUS_AGENT__STATE_DIR={disk}\n"
    try:
        async with box.altered("full", more, settings + "[outbox]\nquota_mb = 32\n"):
            await box.connected()
            fill = f"head -c 60M /dev/zero > {disk}/ballast"
            await box.machine.run("sh", "-c", fill, check=False)

            async def told() -> bool:
                health = (await box.status())["health"]
                return "disk" in str(health) or "full" in str(health)

            await gathered(told, "it says that its disk is full", 60)
            await box.machine.run("rm", f"{disk}/ballast")

            async def well() -> bool:
                return "full" not in str((await box.status())["health"])

            await gathered(well, "it works again by itself", 60)
            assert await box.restarts() == 0
    finally:
        await box.machine.run("umount", disk, check=False)
        await box.machine.run("rmdir", disk)


async def test_a_clock_at_1970_stops_nothing(box: Box) -> None:
    """Nothing is dated before the agent was built, and all of it arrives when the time is right."""
    async with box.altered("clock", FAKE):
        # TLS cannot be had at such a time, and nothing may be lost for it.
        async def collects() -> bool:
            return await box.waiting() > 0

        await gathered(collects, "it collects", 60)
        newest = (await box.machine.ask("/v1/events?limit=20"))["events"]
        assert min(event["time"] for event in newest) > "2026"
    await box.drained()


async def finish(box: Box) -> None:
    """End the load, and see that all of it arrived, once."""
    await box.machine.run("touch", "/var/lib/nexus/quiet")
    try:

        async def over() -> None:
            reports = {name: plugin["report"] for name, plugin in (await box.plugins()).items()}
            if reports["numbers"] != "quiet":
                raise NotYet(str(reports))

        await until("the load has ended", over, within=60)
        await box.drained()
        verdict = box.judge()
        assert verdict.promised > 100
        assert (verdict.lost, verdict.twice) == ([], [])
    finally:
        for name in ("quiet", "notes"):
            (box.machine.root / f"var/lib/nexus/{name}").unlink(missing_ok=True)
