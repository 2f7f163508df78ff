"""What the sandbox refuses, tried from inside the agent; and what it must let through."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import pytest
from tests.systemd.box import AGENT, Box, gathered, probe

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

ALLOWED: Final = {
    "keep its state",
    "use SQLite",
    "use its own temporary folder",
    "run a process of a plugin",
    "talk over a socket pair",
    "open a TCP socket",
    "open a pseudo terminal",
}
BUNDLES: Final = Path(__file__).parents[1] / "plugins"
MEMORY_MB: Final = 768
"""LimitDATA of the unit."""
BURST: Final = 1_000
"""LogRateLimitBurst of the unit. journald.conf(5): it grows with the binary logarithm of the free
disk space; with a terabyte it is six times as much."""


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    """What was tried, and the name of the error that came of it; filled by the first test."""
    return {}


async def test_what_it_needs_works(box: Box, found: dict[str, str]) -> None:
    state = box.machine.root / "var/lib/nexus"
    box.machine.write("/home/eve/secret", "x")
    box.machine.write("/srv/secret", "x", mode=0o600)
    (state / "probe.json").unlink(missing_ok=True)
    async with box.altered("probe", settings=probe("try")):

        async def tried() -> bool:
            file = state / "probe.json"
            return file.is_file() and file.stat().st_size > 0

        await gathered(tried, "the probe has tried all", 60)
        found |= json.loads((state / "probe.json").read_text("utf-8"))
    assert {what: found[what] for what in ALLOWED} == dict.fromkeys(ALLOWED, "")


async def test_everything_else_is_refused(found: dict[str, str]) -> None:
    assert found
    assert [what for what, error in found.items() if what not in ALLOWED and not error] == []


async def test_it_is_refused_for_the_sandbox_not_by_chance(found: dict[str, str]) -> None:
    """What is not there, such as /dev/mem, is hidden; what is there is forbidden."""
    errors = {error for what, error in found.items() if what not in ALLOWED}
    assert errors <= {"EPERM", "EACCES", "EROFS", "ENOENT", "EAFNOSUPPORT", "EBUSY"}


async def test_nothing_of_it_has_changed_the_machine(box: Box, found: dict[str, str]) -> None:
    assert found
    root = box.machine.root
    assert not (root / "var/x").exists()
    assert not (root / "usr/lib/nexus-agent/x").exists()
    assert (root / "home/eve/secret").read_text("utf-8") == "x"


async def test_a_plugin_has_a_process_of_its_own_within_it(box: Box) -> None:
    place = box.machine.root / "usr/local/lib/nexus/plugins"
    for name in ("neighbour", "hostile"):
        shutil.copytree(BUNDLES / name, place / name, dirs_exist_ok=True)
    path = "/var/lib/nexus/agent.db"
    settings = f'[plugins.neighbour]\n[plugins.hostile]\ndeed = "peek"\npath = "{path}"\n'
    async with box.altered("bundles", settings=settings):
        await box.event("neighbour.number")
        [found, _] = (await box.event("hostile.done"))["data"]
        plugins = await box.plugins()
    assert [plugins[name]["isolation"] for name in ("neighbour", "hostile")] == ["process"] * 2
    assert plugins["neighbour"]["state"] == "running"
    assert found[path] == "Permission denied", "of the agent it sees nothing"


async def test_memory_ends_for_it_alone(box: Box) -> None:
    eaten = box.machine.root / "var/lib/nexus/eaten"
    eaten.unlink(missing_ok=True)
    async with box.altered("eat", settings=probe("eat")):

        async def full() -> bool:
            return eaten.is_file() and eaten.read_text("ascii") != ""

        await gathered(full, "the probe has eaten", 60)
        assert 100 < int(eaten.read_text("ascii")) < MEMORY_MB
        await box.connected()
        assert await box.restarts() == 0


async def test_a_plugin_that_talks_without_end_does_not_fill_the_journal(box: Box) -> None:
    async with box.altered("talk", settings=probe("talk")):
        await box.connected()

        async def talked() -> bool:
            return bool((await box.plugins())["probe"]["report"] == "talked")

        await gathered(talked, "the probe has said all", 60)
        entries = [e for e in await box.machine.journal(AGENT) if "talk" in str(e.get("MESSAGE"))]
        assert 0 < len(entries) <= 7 * BURST
