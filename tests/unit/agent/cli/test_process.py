"""`nexus` as a process of its own: following, signals, closed pipes, colours, import cost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.agent.cli.conftest import Agent, event

Start = Callable[..., Awaitable[Process]]


@pytest_asyncio.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    """Start `nexus` against the running agent; it is ended with the test."""
    started: list[Process] = []

    async def command(*args: str, **environ: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "nexus_agent.cli", "--socket", str(path), *args),
            stdout=PIPE,
            stderr=PIPE,
            env={**os.environ, **environ},
        )
        started.append(process)
        return process

    yield command
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(10):
        return await process.stdout.readline()


async def end_of(process: Process) -> tuple[int | None, str]:
    assert process.stderr is not None
    async with asyncio.timeout(10):
        words = await process.stderr.read()
        await process.wait()
    return process.returncode, words.decode()


async def test_follow_prints_history_and_then_each_event_as_it_comes(
    start: Start, agent: Agent
) -> None:
    process = await start("events", "-f", "--json", "--limit", "2")

    assert [json.loads(await line_of(process))["seq"] for _ in range(2)] == [29, 30]
    agent.live.put_nowait(event(31))
    assert json.loads(await line_of(process))["seq"] == 31
    agent.live.put_nowait(event(32))
    assert json.loads(await line_of(process))["seq"] == 32


async def test_follow_for_people_is_a_line_an_event(start: Start, agent: Agent) -> None:
    process = await start("events", "--follow", "--limit", "1")
    await line_of(process)

    agent.live.put_nowait(event(31, {"note": "a\nb\x1b"}))

    assert b'obd     {"note":"a\\nb\\u001b"}\n' in await line_of(process)


async def test_ctrl_c_is_quiet(start: Start) -> None:
    process = await start("events", "-f", "--limit", "1")
    await line_of(process)

    process.send_signal(signal.SIGINT)

    assert await end_of(process) == (130, "")


async def test_a_closed_pipe_is_quiet(start: Start, agent: Agent) -> None:
    process = await start("events", "-f", "--json", "--limit", "1")
    await line_of(process)
    transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]

    transport.close()
    agent.live.put_nowait(event(31))
    agent.live.put_nowait(event(32))

    assert (await end_of(process))[1] == ""


async def test_an_agent_that_ends_the_stream_is_an_error(start: Start, agent: Agent) -> None:
    process = await start("events", "-f", "--limit", "1")
    await line_of(process)

    agent.live.put_nowait(None)

    code, words = await end_of(process)
    assert code == 1
    assert "ended the stream" in words


async def test_no_colours_go_into_a_pipe(start: Start) -> None:
    process = await start("status")

    output, _ = await process.communicate()

    assert b"\x1b" not in output


async def test_a_screen_that_knows_only_ascii_gets_only_ascii(start: Start) -> None:
    process = await start("status", PYTHONIOENCODING="ascii")

    output, _ = await process.communicate()

    assert process.returncode == 0
    assert b"\nx The broker refuses this box.\n" in output


async def on_a_terminal(path: Path, **environ: str) -> bytes:
    """What `nexus status` writes to a terminal."""
    ours, theirs = os.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nexus_agent.cli", "--socket", str(path), "status"),
            stdout=theirs,
            env={**os.environ, **environ},
        )
        await process.wait()
        return await asyncio.to_thread(os.read, ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_terminal_gets_colours(path: Path) -> None:
    assert b"\x1b[31m" in await on_a_terminal(path, NO_COLOR="")


async def test_no_color_is_respected_on_a_terminal(path: Path) -> None:
    assert b"\x1b" not in await on_a_terminal(path, NO_COLOR="1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_somebody_else_is_not_allowed(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import os; from nexus_agent.cli import client, commands, show;"
        "from nexus_agent.cli import main; import click.shell_completion;"
        f"os.setgroups([]); os.setuid(65534); main(['--socket', {str(path)!r}, 'status'])",
        stdout=PIPE,
        stderr=PIPE,
    )

    code, words = await end_of(process)

    assert code == 4
    assert "ask to be put into the group nexus" in words


async def test_nothing_heavy_is_imported(start: Start) -> None:
    heavy = ("pydantic", "sqlalchemy", "structlog", "orjson", "asyncio", "cryptography")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys, nexus_agent.cli.client, nexus_agent.cli.show;"
        f"print([name for name in {heavy} if name in sys.modules])",
        stdout=PIPE,
    )

    output, _ = await process.communicate()

    assert output == b"[]\n"
