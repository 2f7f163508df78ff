"""What `nexus` prints and how it ends, run against a real status server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.agent.cli.conftest import VIN, Agent, Run, invoke

from nexus_agent.cli import main
from nexus_agent.cli.commands import STREAMS
from nexus_agent.protocol import Stream


async def test_status_says_the_worst_first(run: Run) -> None:
    result = await run("status")

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "bay-3 is offline: agent 0.1.0, process 4711, up 1 h 5 min",
        "",
        "✗ The broker refuses this box.",
        "! The clock is not synchronised.",
        "✓ The disk has room.",
        "",
        "Broker   ! waiting for 3 min, mqtts://fleet.example:8883",
        "           connection refused (attempt 4)",
        "Outbox   … 1,204 events wait (56 kB), the oldest for 2 h 5 min",
        "Plugins  ✓ host  running",
        "         ! obd   backoff",
        "Unwell   ! link for 2 h",
    ]


async def test_status_of_a_box_with_nothing_to_say(run: Run, agent: Agent) -> None:
    agent.status_document |= {
        "state": "online",
        "health": [],
        "services": [],
        "broker": {
            "state": "connected",
            "url": "mqtts://b:8883",
            "since": None,
            "error": None,
            "attempt": 0,
        },
        "outbox": {"pending_events": 0, "pending_bytes": 0, "oldest": None},
        "plugins": {},
    }

    lines = (await run("status")).stdout.splitlines()

    assert lines[2:] == [
        "Broker   ✓ connected, mqtts://b:8883",
        "Outbox   ✓ nothing waits",
        "Plugins  none",
    ]


async def test_plugins_are_a_table_and_nothing_commands_the_terminal(run: Run) -> None:
    result = await run("plugins")

    assert result.stdout.splitlines() == [
        "  NAME  VERSION  STATE    RUNS AS  FOR   RESTARTS  EVENTS  REPORT",
        "✓ host  1.0      running  task     40 s         0  12,345  CPU 4 %",
        "! obd   1.0      backoff  process  40 s         3       0  it is silent",
        "",
        "obd: last error: adapter\N{REPLACEMENT CHARACTER}[2Jis silent",
    ]


async def test_outbox_is_a_table_of_streams_and_a_forecast(run: Run) -> None:
    result = await run("outbox")

    assert result.stdout.splitlines() == [
        "epoch 2, database 1.2 MB of 1.0 GB",
        "",
        "STREAM     WAITING  SEGMENTS   SIZE     OLDEST  ACKNOWLEDGED  NEXT",
        "telemetry    1,203        12  56 kB  2 h 5 min             1  1205",
        "",
        "56 kB wait; at 1.2 MB/s about 4 min",
        "sent today: 12 MB of 50 MB, log 1.0 kB of 2.0 MB",
        "sent this month: 99 MB",
    ]


async def test_outbox_says_why_a_stream_waits_and_until_when(run: Run, agent: Agent) -> None:
    (stream,) = agent.outbox_document["streams"]
    soon = datetime.now(UTC) + timedelta(hours=2)
    stream["held"] = {"reason": "the day's 50 MB are used up", "until": soon.isoformat()}

    shown = (await run("outbox")).stdout

    assert (
        f"! telemetry waits: the day's 50 MB are used up; goes on at {soon.astimezone():%H:%M}\n"
        in shown
    )
    stream["held"] = {"reason": "the line is metered", "until": None}
    assert "! telemetry waits: the line is metered\n" in (await run("outbox")).stdout


@pytest.mark.parametrize(
    ("forecast", "sentence"),
    [
        (
            {"limited_by": "offline", "seconds": 9.2 * 86_400, "bytes": 1_024_000_000},
            (
                "not connected: nothing moves; the quota of 1.0 GB is reached in about 9 days "
                "at the present rate"
            ),
        ),
        ({"limited_by": "offline"}, "not connected: nothing moves"),
        (
            {"limited_by": "budget", "seconds": 6 * 86_400, "bytes": 50e6, "period": "day"},
            "56 kB wait; at 50 MB a day about 6 days",
        ),
        (
            {"limited_by": "budget", "bytes": 50e6, "period": "month", "growing": True},
            "56 kB wait; more comes in than 50 MB a month let out",
        ),
        ({"limited_by": "metered"}, "56 kB wait for as long as the line is metered"),
        ({"limited_by": "unknown"}, "56 kB wait; the speed of the line is not known yet"),
    ],
)
async def test_outbox_forecasts(
    run: Run, agent: Agent, forecast: dict[str, Any], sentence: str
) -> None:
    blank = {"seconds": None, "bytes": None, "period": None, "growing": False}
    agent.outbox_document["forecast"] = blank | forecast

    assert (await run("outbox")).stdout.splitlines()[5] == sentence


async def test_outbox_tells_of_what_was_dropped(run: Run, agent: Agent) -> None:
    loss = {"stream": "telemetry", "epoch": 2, "first": 3, "last": 9, "cause": "disk quota"}
    times = {"first_time": "2026-01-05T10:02:00Z", "last_time": "2026-01-05T10:05:00Z"}
    one = {"stream": "log", "epoch": 2, "first": 4, "last": 4, "cause": "damaged on the disk"}
    agent.outbox_document["losses"] = [loss | times | {"told": True}, one | {"told": False}]

    shown = (await run("outbox", TZ="UTC")).stdout

    when = "recorded 2026-01-05 10:02 to 2026-01-05 10:05"
    assert f"! 7 telemetry events dropped, {when}: disk quota\n" in shown
    known = "the console does not know yet"
    assert f"! 1 log event dropped: damaged on the disk; {known}\n" in shown


async def test_outbox_says_that_nothing_waits(run: Run, agent: Agent) -> None:
    agent.outbox_document["streams"][0]["pending_bytes"] = 0

    assert (await run("outbox")).stdout.splitlines()[5] == "nothing waits"


async def test_events_are_lines_in_local_time(run: Run, agent: Agent) -> None:
    agent.history = [event for event in agent.history if event["seq"] == 7]

    result = await run("events", TZ="UTC")

    when, rest = result.stdout[:23], result.stdout[23:]
    assert when.endswith(":00.250")
    assert rest == ('  telemetry  telemetry.pid       obd     {"name":"engine_speed","value":7}\n')


async def test_events_asks_for_what_was_said(run: Run, agent: Agent) -> None:
    await run(
        "events", "--type", "dtc.observed", "--stream", "event", "--limit", 5, "--after", "1/a b&c"
    )

    assert agent.asked == [("1/a b&c", 5, "dtc.observed", Stream.EVENT)]


async def test_events_shows_the_newest_twenty(run: Run, agent: Agent) -> None:
    result = await run("--json", "events")

    assert [event["seq"] for event in json.loads(result.stdout)["events"]] == list(range(11, 31))
    assert agent.asked == [(None, 20, None, None)]


@pytest.mark.parametrize("command", ["status", "plugins", "outbox", "events"])
@pytest.mark.parametrize("before", [True, False])
async def test_json_is_the_agents_document_wherever_it_is_asked_for(
    run: Run, command: str, before: bool
) -> None:
    args = ("--json", command) if before else (command, "--json")

    result = await run(*args)

    assert result.exit_code == 0
    assert json.loads(result.stdout)["v"] == 1
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("before", [True, False])
async def test_socket_is_taken_wherever_it_stands(path: Path, before: bool) -> None:
    args = ("--socket", path, "status") if before else ("status", "--socket", path)

    result = await invoke(*args, NEXUS_SOCKET="/nowhere/else.sock")

    assert result.exit_code == 0


async def test_the_agents_own_sentence_is_the_error(run: Run) -> None:
    result = await run("events", "--type", "Nope")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("nexus: event type 'Nope': use dotted lower-case words")


async def test_a_document_of_another_version_is_an_error_and_no_traceback(
    run: Run, agent: Agent
) -> None:
    del agent.status_document["broker"]

    result = await run("status")

    assert result.exit_code == 1
    assert result.stderr.endswith("try --json\n")


async def test_without_a_socket_file_no_agent_runs(tmp_path: Path) -> None:
    result = await invoke("--socket", tmp_path / "none.sock", "status")

    assert result.exit_code == 3
    assert "none.sock: is nexus-agent running?" in result.stderr


async def test_with_a_dead_agents_socket_no_agent_runs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))

    result = await invoke("--socket", tmp_path / "dead.sock", "--json", "status")

    assert result.exit_code == 3
    assert result.stdout == ""


async def test_a_path_that_no_socket_can_have_is_misuse(tmp_path: Path) -> None:
    result = await invoke("--socket", tmp_path / ("s" * 120), "status")

    assert result.exit_code == 2
    assert "too long" in result.stderr


@pytest.mark.parametrize("answer", [b"", b"220 mail ready\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_what_is_no_agent_is_an_error(tmp_path: Path, answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = tmp_path / "other.sock"
    async with await asyncio.start_unix_server(talk, path):
        result = await invoke("--socket", path, "status")

    assert result.exit_code == 1
    assert result.stderr.startswith("nexus: ")


async def test_an_answer_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    path = tmp_path / "cut.sock"
    async with await asyncio.start_unix_server(talk, path):
        result = await invoke("--socket", path, "status")

    assert result.exit_code == 1
    assert "broke off its answer" in result.stderr


async def test_a_refusal_before_the_request_was_read_is_understood(tmp_path: Path) -> None:
    """So a server that is full answers: at once, and then it hangs up."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"error":"only members may"}'
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    path = tmp_path / "full.sock"
    async with await asyncio.start_unix_server(talk, path):
        result = await invoke("--socket", path, "status")

    assert (result.exit_code, result.stderr) == (4, "nexus: only members may\n")


async def test_a_wrong_command_gets_a_suggestion() -> None:
    result = await invoke("stauts")

    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.stderr


@pytest.mark.parametrize(
    "args", [("events", "--limit", "0"), ("events", "--stream", "alarm"), ("status", "--wide")]
)
async def test_a_wrong_option_is_misuse(args: tuple[str, ...]) -> None:
    assert (await invoke(*args)).exit_code == 2


async def test_help_lists_the_exit_codes() -> None:
    result = await invoke("--help")

    assert result.exit_code == 0
    assert "  3  no agent runs at the socket\n" in result.stdout


def test_the_streams_are_those_of_the_protocol() -> None:
    assert tuple(Stream) == STREAMS


@pytest.mark.skipif("NEXUS_BROKER__URL" in os.environ, reason="the environment names a broker")
class TestConfigCheck:
    async def test_a_right_file_is_ok(self, tmp_path: Path) -> None:
        file = tmp_path / "agent.toml"
        file.write_text('[broker]\nurl = "mqtts://b:8883"\n[plugins.host]\nenabled = true\n')

        result = await invoke("config", "check", file)

        assert (result.exit_code, result.stdout) == (0, f"{file}: ok\n")

    async def test_a_wrong_key_is_one_line_and_exit_code_2(self, tmp_path: Path) -> None:
        file = tmp_path / "agent.toml"
        file.write_text('[broker]\nulr = "mqtts://b:8883"\n')

        result = await invoke("config", "check", file)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"{file}: broker.")

    async def test_json_has_the_same(self, tmp_path: Path) -> None:
        result = await invoke("--json", "config", "check", tmp_path / "none.toml")

        assert result.exit_code == 2
        answer = json.loads(result.stdout)
        assert answer["ok"] is False
        assert "cannot be read" in answer["error"]


# -- erase ---------------------------------------------------------------------------------------


async def test_erase_says_what_is_gone_and_what_is_not_yet(run: Run) -> None:
    result = await run("erase", "--yes", "--vin", VIN.lower())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        (
            "30 delivered events, 1 notes of plugins and 2 results of commands named the car and "
            "are erased."
        ),
        "4 delivered events that lay among them are not kept here any longer.",
        "5 wait for the console, and go here once it has them.",
        "The database's log could not be emptied, for it is being read: run this again.",
        "Damaged, so nobody looked into it: agent.db.damaged-1. Delete it if it may name the car.",
    ]


async def test_erase_reads_the_vin_where_no_list_of_processes_shows_it(path: Path) -> None:
    command = ["--socket", str(path), "erase", "--yes", "--vin", "-"]
    result = await asyncio.to_thread(CliRunner().invoke, main, command, f"{VIN}\n")
    assert (result.exit_code, result.stdout[:12]) == (0, "30 delivered")


async def test_erase_asks_first(run: Run) -> None:
    result = await run("erase", "--vin", VIN)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Erase all that this box keeps of the car? [y/N]" in result.stderr


async def test_erase_prints_the_last_document_for_scripts(run: Run, agent: Agent) -> None:
    result = await run("--json", "erase", "--yes", "--vin", VIN)
    assert json.loads(result.stdout) == agent.erased_document | {"done": True}


async def test_erase_that_breaks_off_is_a_failure(run: Run, agent: Agent) -> None:
    agent.erasing = [{}]
    result = await run("erase", "--yes", "--vin", VIN)
    assert result.exit_code == 1
    assert result.stderr == "nexus: the agent stopped before it was done: run the command again\n"


async def test_what_is_no_vin_is_refused(run: Run) -> None:
    result = await run("erase", "--yes", "--vin", "V" * 16)
    assert result.exit_code == 1
    assert result.stderr.startswith("nexus: a VIN has 17 letters and digits")


# -- scan ----------------------------------------------------------------------------------------


async def test_scan_says_what_every_module_told_and_what_has_changed(
    run: Run, agent: Agent
) -> None:
    result = await run("scan", "--phase", "post", "--adapter", "left")
    assert (result.exit_code, result.stderr) == (0, "uds: module 1 of 2\n")
    assert agent.scans == [{"phase": "post", "adapter": "left"}]
    assert result.stdout.splitlines() == [
        "Scan of v-1, after the repair",
        "",
        "P0301     stored          7E8  ECM",
        "P0301-11  stored, active  UDS 7E8",
        "",
        "1 of 3 modules answered everything.",
        "  7E8: pending refused: nobody knows whether it has codes",
        "  UDS 7EA did not answer: nobody knows whether it has codes",
        "  j1939 failed: can0 has gone",
        "",
        "Since the last scan of this vehicle:",
        "  new        P0301-11 (UDS 7E8)",
        "  remaining  P0301 (7E8)",
        "  unknown    C0035-00 (UDS 7EA): stored did not answer now",
    ]


async def test_a_scan_that_finds_no_code_does_not_call_the_car_clean(
    run: Run, agent: Agent
) -> None:
    agent.scan_document = {**agent.scan_document, "dtcs": [], "diff": None}
    result = await run("scan")
    assert "No trouble code was told." in result.stdout
    assert "UDS 7EA did not answer: nobody knows whether it has codes" in result.stdout


async def test_scan_prints_the_whole_result_for_scripts(run: Run, agent: Agent) -> None:
    result = await run("--json", "scan")
    assert json.loads(result.stdout) == agent.scan_document


async def test_several_cars_are_told_one_after_the_other(run: Run, agent: Agent) -> None:
    other = {**agent.scan_document, "vehicle_ref": "v-2", "phase": None}
    agent.scan_document = {**agent.scan_document, "others": [other]}
    result = await run("scan")
    heads = [line for line in result.stdout.splitlines() if line.startswith("Scan of")]
    assert heads == ["Scan of v-1, after the repair", "Scan of v-2"]


async def test_a_scan_that_fails_says_why(run: Run, agent: Agent) -> None:
    agent.scan_error = "obd: the adapter is gone"
    result = await run("scan")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] == "nexus: obd: the adapter is gone"
