"""Hostile plugins in a real agent, with a real console: who is hurt, and who is told.

Whatever a plugin does, in a tier where that can be survived: the agent stays the process that it
was and answers, the neighbour's events arrive at the console without a gap, and the reason stands
in `nexus plugins` and in an alert at the console.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pwd
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from nexus_agent.cli.client import Agent
from nexus_agent.cli.errors import AgentError
from nexus_agent.runtime.confine import landlock_version
from nexus_demo import api
from nexus_demo.broker import Kind, find_mosquitto
from nexus_demo.fleet import USER, Fleet, running
from nexus_demo.processes import Process
from nexus_demo.waiting import NotYet, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUNDLES: Final = Path(__file__).parents[1] / "plugins"
WITHIN_S: Final = 60.0
_names: Final = (f"box-{number}" for number in itertools.count(1))
_SETTINGS: Final = """\
[agent]
id = "{name}"
state_dir = "{folder}/state"
socket = "{folder}/agent.sock"
bundles = "{bundles}"
[broker]
url = "mqtts://127.0.0.1:{port}"
ca = "{ca}"
cert = "{cert}"
key = "{key}"
[supervisor]
backoff_s = 0.2
restarts = 3
[plugins.neighbour]
isolation = "task"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A broker with TLS and a console."""
    kind = Kind.MOSQUITTO if find_mosquitto() else Kind.IOTCORE
    folder = tmp_path_factory.mktemp("fleet")
    async with running(folder, kind, print, bays=()) as fleet:
        yield fleet


class Box:
    """An agent with a good and a bad plugin."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.name = next(_names)
        self._fleet = fleet
        self._file = folder / "agent.toml"
        self.socket = folder / "agent.sock"
        own = fleet.authority.client(self.name)
        self._text = _SETTINGS.format(
            name=self.name,
            folder=folder,
            bundles=BUNDLES,
            port=fleet.broker.port,
            ca=fleet.broker.ca,
            cert=own.cert,
            key=own.key,
        )
        command = (sys.executable, "-m", "nexus_agent", "run", "--config", self._file)
        self.process = Process("agent", command, folder / "agent.log", dict(os.environ))

    async def start(self, settings: str, supervisor: str = "") -> None:
        text = self._text.replace("[supervisor]\n", f"[supervisor]\n{supervisor}\n")
        self._file.write_text(text + settings, "utf-8")
        await self.process.start()

    def _ask(self, path: str) -> Any:
        try:
            return json.loads(Agent(str(self.socket)).get(path))
        except AgentError as error:
            raise NotYet(str(error)) from None

    async def plugin(
        self, name: str, what: str, wanted: Callable[[dict[str, Any]], object]
    ) -> dict[str, Any]:
        """The plugin as `nexus plugins` has it, once it is as *wanted*."""

        async def look() -> dict[str, Any]:
            self.process.check()
            found = await asyncio.to_thread(self._ask, "/v1/plugins")
            (plugin,) = (one for one in found["plugins"] if one["name"] == name)
            if not wanted(plugin):
                raise NotYet(str(plugin))
            return dict(plugin)

        return await until(f"{name} {what}", look, within=WITHIN_S)

    async def alert(self, words: str) -> dict[str, Any]:
        """The alert at the console whose reason has *words*."""
        async with api.signed_in(self._fleet.address, USER, self._fleet.password) as console:

            async def look() -> dict[str, Any]:
                told = await console.events(self.name, "plugin.state")
                for event in told:
                    if event["stream"] == "alert" and words in (event["data"]["reason"] or ""):
                        return dict(event["data"])
                raise NotYet(f"{[(e['stream'], e['data']) for e in told]}")

            return await until(f"an alert with {words!r}", look, within=WITHIN_S)

    async def events(self, event_type: str) -> list[Any]:
        """Their data, at the console, in order."""
        async with api.signed_in(self._fleet.address, USER, self._fleet.password) as console:
            return [event["data"] for event in await console.events(self.name, event_type)]

    async def neighbour_lost_nothing(self) -> None:
        """What it was promised by now is at the console, and it goes on."""
        before = await self.plugin("neighbour", "runs", lambda p: p["state"] == "running")
        promised = int(before["report"].split()[0])
        await self.plugin("neighbour", "goes on", lambda p: p["events"] > before["events"] + 5)

        async def look() -> list[Any]:
            numbers = await self.events("neighbour.number")
            if len(numbers) < promised:
                raise NotYet(f"{len(numbers)} of {promised}")
            return numbers

        numbers = await until("its events at the console", look, within=WITHIN_S)
        assert numbers == list(range(1, len(numbers) + 1))
        assert before["restarts"] == 0


@pytest_asyncio.fixture(loop_scope="module")
async def box(tmp_path: Path, fleet: Fleet) -> AsyncIterator[Box]:
    box = Box(tmp_path, fleet)
    yield box
    await box.process.stop()


def hostile(deed: str, isolation: str, more: str = "") -> str:
    return f'[plugins.hostile]\nisolation = "{isolation}"\ndeed = "{deed}"\n{more}\n'


FAILS: Final = {
    "raise": "ZeroDivisionError: a bug",
    "retry": "the adapter is gone",
    "exit": "SystemExit: 3",
    "fatal": "there is no such port",
}
"""Deeds that both tiers survive."""
ENDS: Final = {
    "segfault": "ended by SIGSEGV at plugins/hostile/hostile_plugin.py",
    "die": "left with code 7",
    "leak": "MemoryError",
    "fork": "Operation not permitted",
    "files": "Too many open files",
    "spin": "its event loop stands still for 10 s at plugins/hostile/hostile_plugin.py",
    "temporary": "may take 5 MB (limits.temporary_mb)",
}
"""Deeds that only a process of its own survives."""


@pytest.mark.parametrize(
    ("deed", "isolation"),
    [
        *((deed, isolation) for deed in FAILS for isolation in ("task", "process")),
        *((deed, "process") for deed in ENDS),
    ],
)
async def test_a_plugin_that_breaks_breaks_alone_and_people_read_why(
    box: Box, deed: str, isolation: str
) -> None:
    words = {**FAILS, **ENDS}[deed]
    await box.start(hostile(deed, isolation, "limits = {temporary_mb = 5}"))
    plugin = await box.plugin("hostile", "has failed", lambda p: p["last_error"])
    assert plugin["isolation"] == isolation
    await box.plugin("hostile", "says why", lambda p: words in (p["reason"] or ""))
    alert = await box.alert(words)
    assert (alert["plugin"], alert["isolation"]) == ("hostile", isolation)
    await box.neighbour_lost_nothing()


@pytest.mark.parametrize("isolation", ["task", "process"])
async def test_one_that_is_done_is_done(box: Box, isolation: str) -> None:
    await box.start(hostile("return", isolation))
    plugin = await box.plugin("hostile", "is done", lambda p: p["state"] == "stopped")
    assert (plugin["reason"], plugin["restarts"]) == ("its work is done", 0)
    await box.neighbour_lost_nothing()


async def test_one_that_blocks_the_loop_for_ten_seconds_is_named(box: Box) -> None:
    await box.start(hostile("block", "task"))
    plugin = await box.plugin("hostile", "has blocked", lambda p: p["stalls"])
    assert "hostile_plugin.py" in plugin["last_error"]
    await box.alert("it kept the agent's event loop for 10.")
    await box.neighbour_lost_nothing()


async def test_one_that_blocks_again_and_again_goes_on_in_a_process_of_its_own(box: Box) -> None:
    await box.start(hostile("stutter", "task"), supervisor="stall_s = 0.2")
    moved = await box.plugin(
        "hostile", "has moved", lambda p: p["moved"] and p["state"] == "running"
    )
    assert moved["isolation"] == "process"
    await box.alert("offence 3 within an hour")
    await box.neighbour_lost_nothing()


@pytest.mark.parametrize("isolation", ["task", "process"])
async def test_a_flood_is_bounded_and_counted(box: Box, isolation: str) -> None:
    await box.start(hostile("flood", isolation, "limits = {events_s = 200}"))
    plugin = await box.plugin(
        "hostile", "is through", lambda p: p["events"] + p["refused_events"] >= 1_000_002
    )
    assert plugin["events"] < 20_000
    await box.neighbour_lost_nothing()


@pytest.mark.parametrize("isolation", ["task", "process"])
@pytest.mark.parametrize(
    ("deed", "told"), [("quota", "at most 1048576 are kept"), ("garbage", "not JSON")]
)
async def test_what_is_refused_is_told_to_the_plugin_and_changes_nothing(
    box: Box, isolation: str, deed: str, told: str
) -> None:
    await box.start(hostile(deed, isolation))
    await box.plugin("hostile", "was told", lambda p: p["events"] == 2)
    await box.neighbour_lost_nothing()
    (answer,) = await box.events("hostile.done")
    assert told in str(answer)


@pytest.mark.parametrize("isolation", ["task", "process"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "plugins.hostile.deed: is missing"),
        ('deed = "raise"\nded = 1', "plugins.hostile.ded: unknown key"),
    ],
)
async def test_wrong_settings_cost_their_plugin_only(
    box: Box, isolation: str, settings: str, words: str
) -> None:
    await box.start(f'[plugins.hostile]\nisolation = "{isolation}"\n{settings}\n')
    plugin = await box.plugin("hostile", "has failed", lambda p: p["state"] == "failed")
    assert words in plugin["reason"]
    assert not plugin["recoverable"]
    await box.alert(words)
    await box.neighbour_lost_nothing()


async def test_one_that_ignores_its_end_holds_up_nobody(box: Box) -> None:
    await box.start(hostile("ignore", "process"))
    await box.plugin("hostile", "runs", lambda p: p["events"] == 1)
    await asyncio.to_thread(Agent(str(box.socket)).post, "/v1/plugins/hostile/stop")
    plugin = await box.plugin("hostile", "is stopped", lambda p: p["pid"] is None)
    assert plugin["reason"] == f"stopped by {pwd.getpwuid(os.geteuid()).pw_name}"
    await box.neighbour_lost_nothing()


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
async def test_a_plugins_process_cannot_speak_as_a_person(box: Box) -> None:
    await box.start(hostile("call", "process", f'path = "{box.socket}"'))
    await box.plugin("hostile", "has tried", lambda p: p["events"] == 2)
    await box.neighbour_lost_nothing()
    (answer,) = await box.events("hostile.done")
    assert answer == "HTTP/1.1 403 Forbidden" or "denied" in answer


@pytest.mark.parametrize(("deed", "after_s"), [("segfault", 1.0)])
async def test_a_task_that_ends_the_agent_goes_on_in_a_process_of_its_own(
    box: Box, deed: str, after_s: float
) -> None:
    settings = hostile(deed, "task", f"after_s = {after_s}")
    await box.start(settings)

    async def ended() -> None:
        if box.process.running:
            raise NotYet("it runs")

    await until("the agent has ended", ended, within=WITHIN_S)
    await box.start(settings)
    moved = await box.plugin("hostile", "has moved", lambda p: p["moved"])
    assert moved["isolation"] == "process"
    assert "it ended the agent: SIGSEGV" in moved["moved"]
    await box.alert("ended by SIGSEGV")
    numbers = await box.events("neighbour.number")
    # It may have ended between a number's commit and the note that it is the last one.
    assert list(dict.fromkeys(numbers)) == list(range(1, numbers[-1] + 1))
    assert len(numbers) - numbers[-1] <= 1
    await box.plugin("neighbour", "goes on", lambda p: p["events"] > 5)


async def test_a_plugins_process_dies_with_the_agent(box: Box) -> None:
    await box.start(hostile("ignore", "process"))
    plugin = await box.plugin("hostile", "runs", lambda p: p["pid"])
    await box.process.kill()

    async def gone() -> None:
        if Path(f"/proc/{plugin['pid']}").exists():
            raise NotYet("it is there")

    await until("it is gone", gone, within=10)
