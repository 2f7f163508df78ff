"""The demo as a person sees it: its lines, and its end at any moment. Sped up, else as it is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import nexus_demo

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(nexus_demo.__file__).parents[1])}

ROUND = [
    r"bay-1: the engine stumbles; a scan finds P0301 pending",
    r"bay-2: the internet is gone; [1-9]\d* events wait at the box; the console shows it offline",
    r"bay-2: the internet is back; the [1-9]\d* events that waited are in the console, no gaps",
    r"bay-1: it misfires again, and the warning lamp comes on",
    r"bay-1: the pre-scan finds P0301 stored and pending",
    (
        r"bay-4: a scan through the DoIP gateway finds P0301-00 stored, P0420-00 stored; "
        r"DoIP 1030 did not answer"
    ),
    r"bay-3: the adapter is gone; the console shows it lost",
    r"bay-3: the adapter is back; the console shows it connected",
    r"yard-1: a scan of the truck finds .*SPN 789 FMI 5 stored",
    r"bay-1: a new ignition coil goes in, and the codes are cleared",
    r"bay-1: the post-scan finds no codes; fixed P0301, remaining none, permanent none, new none",
]
FIRST_OF_THE_NEXT = r"bay-1: the engine stumbles"


class Demo:
    """`python -m nexus_demo` as a process whose lines are read one by one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self, pattern: str) -> str:
        """Read on to a line that holds *pattern*."""
        assert self._process.stdout is not None
        read = []
        async for line in self._process.stdout:
            read.append(line.decode())
            if re.search(pattern, read[-1]):
                return read[-1]
        raise AssertionError(f"no {pattern!r} in:\n{''.join(read)}")

    async def interrupted(self) -> tuple[int | None, str]:
        """Ctrl-C; the exit code, and what was still said."""
        self._process.send_signal(signal.SIGINT)
        output, _ = await self._process.communicate()
        return self._process.returncode, output.decode()

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    demo = Demo(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nexus_demo", "--pace", "0.1", "--folder", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=ENVIRON,
        )
    )
    yield demo
    await demo.end()


async def test_the_street_lives(demo: Demo) -> None:
    await demo.line("online in the console: bay-1, bay-2, bay-3, bay-4, yard-1")
    lines = [await demo.line(r"\] ") for _ in ROUND]
    wrong = [
        (line, pattern)
        for line, pattern in zip(lines, ROUND, strict=True)
        if not re.search(rf"\] {pattern}$", line.rstrip())
    ]
    assert wrong == []
    await demo.line(FIRST_OF_THE_NEXT)


@pytest.mark.parametrize(
    "moment",
    ["files and logs", "console: http", ROUND[1]],
    ids=["at the start", "before the agents", "without internet"],
)
async def test_ctrl_c_ends_it_at_any_moment(moment: str, demo: Demo) -> None:
    await demo.line(moment)
    code, output = await demo.interrupted()
    assert (code, "Traceback" in output) == (0, False), output
    assert output.endswith("stopped\n")


async def test_it_ends_when_nobody_reads_its_lines(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_demo", "--folder", str(tmp_path)),
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRON,
    )
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    _, error = await process.communicate()
    assert (process.returncode, error) == (0, b"")


async def test_a_pace_that_is_none_is_said() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_demo", "--pace", "nan"),
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRON,
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"'nan' is no number of seconds" in error
