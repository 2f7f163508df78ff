from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from nexus_demo import processes
from nexus_demo.processes import Process
from nexus_demo.waiting import DemoError, NotYet, until

READY = "print('ready', flush=True)"
FOREVER = f"import time; {READY}; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
ORPHAN_MAKER = """
import asyncio, sys
from pathlib import Path
from nexus_demo.processes import Process
async def main():
    child = Process("child", [sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def _started(folder: Path, program: str) -> Process:
    process = Process("it", [sys.executable, "-c", program], folder / "it.log")
    await process.start()

    async def ready() -> None:
        if "ready" not in process.log.read_text():
            raise NotYet("not ready")

    await until("it is ready", ready, within=10, every=0.02)
    return process


def _runs(pid: int) -> bool:
    """Whether it runs; a zombie, which nobody here can reap, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # proc(5): the state follows the name


async def _gone(pid: int) -> None:
    if _runs(pid):
        raise NotYet(f"{pid} still runs")


async def test_stop_asks_first(tmp_path: Path) -> None:
    process = await _started(tmp_path, FOREVER)
    assert await process.stop() == -signal.SIGTERM
    assert not process.running


async def test_stop_kills_what_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    process = await _started(tmp_path, STUBBORN)
    assert await process.stop() == -signal.SIGKILL


async def test_it_starts_again_and_keeps_its_log(tmp_path: Path) -> None:
    process = await _started(tmp_path, FOREVER)
    await process.kill()
    await process.start()
    assert process.running
    await process.stop()
    assert "ready" in process.log.read_text()


async def test_check_shows_the_end_of_the_log(tmp_path: Path) -> None:
    process = await _started(tmp_path, f"{READY}; raise SystemExit('no such vehicle')")

    async def ended() -> None:
        if process.running:
            raise NotYet("it runs")

    await until("it ends", ended, within=10, every=0.02)
    with pytest.raises(DemoError, match=r"it ended with code 1\n(?s:.*)no such vehicle"):
        process.check()


async def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHAN_MAKER, FOREVER, str(tmp_path / "child.log")),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(processes.__file__).parents[1])},
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.communicate()
    await until("the child is gone", lambda: _gone(child), within=5, every=0.02)


async def test_a_condition_that_stays_unmet_says_what_was_seen() -> None:
    async def never() -> None:
        raise NotYet("two of three are there")

    with pytest.raises(DemoError, match=r"all are there: not within 0\.05 s: two of three"):
        await until("all are there", never, within=0.05, every=0.01)
