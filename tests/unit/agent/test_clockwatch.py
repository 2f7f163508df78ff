"""A clock that is told by a file whether it is synchronised, and who writes that file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus_agent import clockwatch
from nexus_agent.clock import BOOT_ID, STATE, Clock, ask_kernel

MINUTE = 60_000_000_000


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "synchronised"
    monkeypatch.setenv(STATE, str(path))
    return path


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_the_watch_writes_what_the_kernel_says(file: Path) -> None:
    before = now()
    clockwatch.tell(file)
    state, at = file.read_text("ascii").split()
    assert (state == "1") is ask_kernel()
    assert before <= int(at) <= now()


def test_the_watch_leaves_nothing_beside_its_file(file: Path) -> None:
    clockwatch.tell(file)
    assert list(file.parent.iterdir()) == [file]


def test_the_file_is_believed_while_it_is_fresh(file: Path) -> None:
    file.write_text(f"1 {now()}\n", "ascii")
    assert Clock().stamp().synced


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: f"0 {now()}\n", id="not synchronised"),
        pytest.param(lambda: f"1 {now() - MINUTE}\n", id="its writer is gone"),
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: "1", id="half"),
        pytest.param(lambda: "1 soon\n", id="no time"),
        pytest.param(lambda: "é 1\n", id="no ASCII"),
    ],
)
def test_anything_else_is_no_synchronised_clock(file: Path, content: Callable[[], str]) -> None:
    file.write_text(content(), "utf-8")
    assert not Clock().stamp().synced


def test_without_the_file_nobody_knows(file: Path) -> None:
    assert not file.exists()
    assert not Clock().stamp().synced


def test_a_step_is_not_covered_by_what_was_said_before(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wall = Clock(), time.time_ns()
    file.write_text(f"1 {now()}\n", "ascii")
    assert clock.stamp().synced
    monkeypatch.setattr(time, "time_ns", lambda: wall + 60 * MINUTE)
    assert not clock.stamp().synced


def test_a_boot_id_of_systemd_is_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = Clock().boot
    monkeypatch.setenv(BOOT_ID, kernels.replace("-", ""))
    assert Clock().boot == kernels
