"""The authors' tutorial, done as it says: its files written, its commands run, in their order.

Not run are the blocks marked so. The first sets up a shell; here that is the test's environment.
The last two start the demo and look at it: `make` would take the demo's whole street, so one of its
boxes is started here, with the same console and broker, and asked through the same doors.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nexus_demo import api
from nexus_demo.broker import choose
from nexus_demo.fleet import BAYS, USER, running
from nexus_demo.waiting import NotYet, until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial-plugin.md"
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+) -->\n)?"
    r"^```(?:\{code-block\} )?(?P<kind>\w+)\n(?::caption: (?P<file>\S+)\n\n)?"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of the page: commands (sh), what they print (text), or a file's text."""

    kind: str
    mark: str | None
    file: str | None
    text: str


def blocks(sensor: Path) -> Iterator[Block]:
    text = PAGE.read_text("utf-8").replace("/tmp/sensor", str(sensor))
    for found in BLOCK.finditer(text):
        yield Block(found["kind"], found["mark"], found["file"], found["text"])


def run(command: str, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def expect(expected: str, printed: str) -> None:
    """Every line of *expected* is in what was printed, in order; `…` stands for anything."""
    lines = iter(printed.splitlines())
    for line in expected.splitlines():
        pattern = re.escape(line).replace("…", ".*")
        assert any(re.fullmatch(pattern, told) for told in lines), f"{line!r} not in:\n{printed}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """The plugin, as the reader has it at the end of the page."""
    printed = ""
    for block in blocks(folder / "sensor"):
        if block.mark == "not run":
            continue
        if block.file is not None:
            (folder / block.file).write_text(block.text, "utf-8")
        elif block.kind == "sh":
            code, printed = run(block.text, folder)
            assert code == (block.mark == "fails"), f"{block.text}\n{printed}"
        else:
            assert block.kind == "text"
            expect(block.text, printed)
    return folder / "thermometer"


@pytest.mark.timeout(300)
def test_every_block_does_what_the_page_says(bundle: Path) -> None:
    code, printed = run("nexus plugin check .", bundle)

    assert code == 0, printed


@pytest.mark.timeout(300)
async def test_the_plugin_runs_on_a_box_of_the_demo(bundle: Path, tmp_path: Path) -> None:
    bay = replace(BAYS[0], guest=bundle)
    async with (
        running(tmp_path, choose("auto"), print, [bay]) as fleet,
        api.signed_in(fleet.address, USER, fleet.password) as console,
    ):

        async def readings() -> list[Any]:
            if bay.box not in await console.devices():
                raise NotYet("no box")
            found = await console.events(bay.box, "thermometer.reading")
            if not found:
                raise NotYet("no reading")
            return found

        [reading, *_] = await until("a reading is in the console", readings, within=60)
        assert reading["data"] == {"value": 51.0, "unit": "°C", "quality": "ok"}
        measured = await console.do(bay.box, "thermometer.measure")
        assert measured["result"]["value"] == 51.0
