"""`nexus plugin run`, `check` and `new` as an author starts them: output, ends and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.workbench.conftest import Bundle

ONE_EVENT = "await self.context.emit('probe.reading', {'path': str(self.context.settings.path)})\n"
TICKS = """
while True:
    print("noise")
    self.context.hand_over("probe.reading", {"every": self.context.settings.interval_s})
    self.context.report("ticking")
    self.context.log.info("a line", number=1)
    await self.context.sleep(self.context.settings.interval_s)
"""


def nexus(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nexus_agent.cli", "plugin", *map(str, args)],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_once_ends_after_the_first_event(bundle: Bundle) -> None:
    done = nexus("run", bundle(TICKS), "--once")

    assert done.returncode == 0
    assert lines(done) == [
        {"type": "probe.reading", "stream": "telemetry", "data": {"every": 10.0}}
    ]
    assert all(words in done.stderr for words in ("noise", "ticking", "a line", "number=1"))


def test_for_ends_after_its_time_and_settings_come_from_the_command_line(bundle: Bundle) -> None:
    done = nexus("run", bundle(TICKS), "--for", "600ms", "--set", "interval_s=0.2")

    assert done.returncode == 0
    assert [line["data"] for line in lines(done)] in [[{"every": 0.2}] * n for n in (2, 3, 4)]


def test_once_ends_when_run_returns(bundle: Bundle) -> None:
    done = nexus("run", bundle("return"), "--once")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_settings_may_come_from_a_file(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[plugins.probe]\nenabled = false\npath = "/mine"\n')

    done = nexus("run", bundle(ONE_EVENT), "--settings", tmp_path / "mine.toml")

    assert lines(done)[0]["data"] == {"path": "/mine"}


def test_a_bundle_here_is_found_by_its_name(bundle: Bundle) -> None:
    done = nexus("run", "probe", "--once", cwd=bundle(ONE_EVENT).parent)

    assert len(lines(done)) == 1


def test_an_installed_plugin_is_found_by_its_name(tmp_path: Path) -> None:
    done = nexus("run", "example", "--once", "--set", f"folder={tmp_path}")

    assert lines(done)[0]["data"]["value"] == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RetryError('no device')", "plugin probe: RetryError: no device\n"),
        ("raise ValueError('odd')", "ValueError: odd, at probe.py:21 in run\n"),
        ("raise SystemExit(0)", "it raised SystemExit, at probe.py:21 in run\n"),
        ("await self.context.emit('Wrong', 1)", "EmitError: event type 'Wrong'"),
    ],
)
def test_a_plugin_that_fails_ends_with_1(bundle: Bundle, body: str, words: str) -> None:
    done = nexus("run", bundle(body))

    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "while True:\n    try:\n        await asyncio.sleep(9)\n    finally:\n        continue",
            "it does not end within 5 s of being cancelled, at probe.py:23 in run\n",
        ),
        ("await self.context.run_blocking(time.sleep, 600)", "run_blocking does not return"),
    ],
)
def test_a_plugin_that_does_not_end_is_left_with_1(bundle: Bundle, body: str, words: str) -> None:
    done = nexus("run", bundle(body), "--for", "10ms")

    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "interval_s=often"], "--set interval_s=often: plugins.probe.interval_s: "),
        (["--set", "intervall_s=1"], "did you mean 'interval_s'?"),
        (["--set", "nothing"], "--set takes key=value"),
        (["--for", "soon"], "'soon' is no time"),
        (["--settings", "/dev/null/none"], "does not exist"),
    ],
)
def test_wrong_options_end_with_2(bundle: Bundle, options: list[str], words: str) -> None:
    done = nexus("run", bundle("return"), *options)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_no_such_plugin_ends_with_2(tmp_path: Path, command: str) -> None:
    done = nexus(command, "hots", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "nexus: no plugin 'hots' is installed; did you mean 'host'?\n"


def started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nexus_agent.cli", "plugin", "run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_lets_the_plugin_end_and_is_quiet(bundle: Bundle, tmp_path: Path) -> None:
    given_back = tmp_path / "given-back"
    tidy = f"Path({str(given_back)!r}).touch()"
    body = f"try:\n    {ONE_EVENT}    await asyncio.sleep(60)\nfinally:\n    {tidy}"
    with started(bundle(body)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=30)

    assert (process.returncode, words) == (130, "")
    assert given_back.exists()


def test_a_closed_pipe_ends_it_quietly(bundle: Bundle) -> None:
    with started(bundle(f"while True:\n    {ONE_EVENT}    await asyncio.sleep(0.01)")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        words = process.stderr.read()

    assert (process.returncode, words) == (0, "")


def test_new_says_what_to_do_next_and_check_agrees(tmp_path: Path) -> None:
    made = nexus("new", "mine", "--folder", tmp_path)
    assert made.returncode == 0
    assert f"nexus plugin check {tmp_path}/mine" in made.stdout

    done = nexus("check", tmp_path / "mine", "--json")

    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    assert {"check", "ok", "text", "advice"} == set(document["checks"][0])


def test_check_is_a_line_a_finding_and_ends_with_1_where_one_fails(bundle: Bundle) -> None:
    done = nexus("check", bundle("1 / 0"))

    assert done.returncode == 1
    assert "ok      manifest      plugin.toml names probe:Probe\n" in done.stdout
    assert "failed  start         raised ZeroDivisionError" in done.stdout
    assert "\n" + 22 * " " + "→ raise RetryError or FatalError" in done.stdout


def test_a_folder_without_a_manifest_is_a_failed_check(tmp_path: Path) -> None:
    done = nexus("check", tmp_path)

    assert done.returncode == 1
    assert "failed  manifest" in done.stdout


def test_a_taken_name_ends_new_with_2(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    done = nexus("new", "mine", "--folder", tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert "is there already" in done.stderr
