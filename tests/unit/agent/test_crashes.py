"""What a process leaves when it dies, and what the next one makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_agent import __version__
from nexus_agent.crashes import KEPT, Crashes, Kind, Report, place_of
from nexus_plugins.host import HostPlugin

SCRIPT = """
import ctypes, os, pathlib, signal, sys
from nexus_agent.crashes import Crashes
crashes = Crashes(pathlib.Path(sys.argv[1]), sys.argv[2], {{"snippet": "<string>"}})
def last_words():
    {last_words}
with crashes.watch():
    last_words()
"""


@pytest.fixture(autouse=True)
def folder(state_dir: Path) -> Path:
    state_dir.mkdir()
    return state_dir / "crashes"


def die(state_dir: Path, last_words: str, boot: str = "boot-1") -> int:
    """Run a process whose watched life is *last_words*; its exit code."""
    script = SCRIPT.format(last_words=last_words)
    command = [sys.executable, "-c", script, str(state_dir), boot]
    done = subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=60)
    return done.returncode


def next_start(state_dir: Path, boot: str = "boot-1") -> list[Report]:
    """What the next process finds to tell, which it then stops without having told it."""
    crashes = Crashes(state_dir, boot, {})
    with crashes.watch():
        return [item.report for item in crashes.untold()]


def test_a_life_that_ends_in_peace_leaves_nothing(state_dir: Path, folder: Path) -> None:
    assert die(state_dir, "return") == 0
    assert die(state_dir, "sys.exit(0)") == 0
    assert list(folder.iterdir()) == []
    assert next_start(state_dir) == []


def test_an_error_is_kept_with_its_place_and_told_as_it_was(state_dir: Path) -> None:
    assert die(state_dir, "raise KeyError('speed')") == 1
    [report] = next_start(state_dir)
    assert (report.kind, report.version) == (Kind.ERROR, __version__)
    assert (report.reason, report.plugin) == ("KeyError: 'speed'", "snippet")
    assert report.stack[0] == "KeyError: 'speed'"
    assert report.stack[-1] == "  <string>:6 in last_words"


@pytest.mark.parametrize(
    ("last_words", "number"),
    [("ctypes.string_at(0)", signal.SIGSEGV), ("os.abort()", signal.SIGABRT)],
    ids=["segmentation-fault", "abort"],
)
def test_a_fatal_signal_leaves_the_stacks(
    state_dir: Path, last_words: str, number: signal.Signals
) -> None:
    assert die(state_dir, last_words) == -number
    [report] = next_start(state_dir)
    assert report.kind is Kind.SIGNAL
    assert report.reason.startswith(number.name)
    assert report.plugin == "snippet"
    assert "  <string>:6 in last_words" in report.stack


@pytest.mark.parametrize(("boot", "kind"), [("boot-1", Kind.KILLED), ("boot-2", Kind.POWER)])
def test_an_end_without_a_trace_is_a_kill_or_a_power_cut(
    state_dir: Path, boot: str, kind: Kind
) -> None:
    assert die(state_dir, "os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    [report] = next_start(state_dir, boot)
    assert (report.kind, report.stack) == (kind, ())
    assert report.at.startswith("20")


def test_a_report_is_told_until_it_is_marked_and_never_after(state_dir: Path) -> None:
    die(state_dir, "raise KeyError")
    assert len(next_start(state_dir)) == len(next_start(state_dir)) == 1
    crashes = Crashes(state_dir, "boot-1", {})
    [item] = crashes.untold()
    crashes.told(item)
    assert next_start(state_dir) == []
    assert len(list((state_dir / "crashes").iterdir())) == 1, "it stays for who looks for it"


def test_the_newest_stay_and_told_ones_go_first(state_dir: Path, folder: Path) -> None:
    crashes = Crashes(state_dir, "boot-1", {})
    with crashes.watch():
        crashes.died(KeyError(0))
        [first] = crashes.untold()
        for number in range(1, KEPT):
            crashes.died(KeyError(number))
        second, third = crashes.untold()[1:3]
        crashes.told(third)
        crashes.died(KeyError(KEPT))
        assert [item.report.reason for item in crashes.untold()[:3]] == [
            first.report.reason,
            second.report.reason,
            "KeyError: 3",
        ]
        crashes.died(KeyError(KEPT + 1))
        assert crashes.untold()[0].report == second.report
        assert len(list(folder.glob("[0-9]*.json"))) == KEPT


def test_a_report_is_bounded(state_dir: Path, folder: Path) -> None:
    crashes = Crashes(state_dir, "boot-1", {})
    with crashes.watch():
        crashes.died(ExceptionGroup("é" * 10_000, [ValueError("é" * 10_000)] * 1000))
        [file] = folder.glob("[0-9]*.json")
        assert file.stat().st_size <= 64 * 1024
        assert len(crashes.untold()) == 1


def test_a_disk_that_takes_nothing_stops_nobody_and_loses_no_report(
    state_dir: Path, folder: Path
) -> None:
    die(state_dir, "os.kill(os.getpid(), signal.SIGKILL)")
    # Nothing can be made or replaced where this stands, and unlike a mode it binds root, too.
    elsewhere = folder.rename(state_dir / "elsewhere")
    folder.symlink_to("/proc/self/fdinfo")
    crashes = Crashes(state_dir, "boot-1", {})
    with crashes.watch():
        assert crashes.untold() == []
        crashes.died(KeyError("speed"))
        assert [item.report.reason for item in crashes.untold()] == ["KeyError: 'speed'"]
        crashes.told(crashes.untold()[0])
        assert crashes.untold() == []
    folder.unlink()
    elsewhere.rename(folder)
    assert [report.kind for report in next_start(state_dir)] == [Kind.KILLED]


def test_what_is_no_report_is_passed_over(state_dir: Path, folder: Path) -> None:
    die(state_dir, "raise KeyError('speed')")
    (folder / "1.json").write_text("{", "utf-8")
    (folder / "running.json").write_bytes(b"\xff")
    reports = next_start(state_dir)
    assert {report.kind for report in reports} == {Kind.ERROR, Kind.KILLED}


def test_a_plugins_place_is_its_package() -> None:
    assert place_of(HostPlugin).endswith("/nexus_plugins/host/")
