"""How one version takes over from another, up to a power cut between any two commands.

The real scripts run below a folder of their own; only systemd is played, by a `systemctl` that
writes down what it is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

PARTS = Path(__file__).resolve().parents[3] / "packaging"
OLD, NEW = "0.1.0", "0.1.1"
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$NEXUS_ROOT/calls"
case $1 in
  show) cat "$NEXUS_ROOT/unit/${2#--property=}" ;;
  is-failed) [ "$(cat "$NEXUS_ROOT/unit/ActiveState")" = failed ] ;;
  start) readlink "$NEXUS_ROOT/usr/lib/nexus-agent/current" >"$NEXUS_ROOT/started" ;;
  stop) rm -f "$NEXUS_ROOT/started" ;;
esac
"""
RECORDED = ("sleep", "chgrp", "systemd-sysusers", "systemd-tmpfiles")
CUT = """#!/bin/sh
count=$(($(/bin/cat "$NEXUS_ROOT/count") + 1))
echo "$count" >"$NEXUS_ROOT/count"
[ "$count" != "$CUT_AT" ] || kill -KILL 0
exec @REAL@ "$@"
"""


class Machine:
    """A root folder with the agent's files, a systemd that is played, and the scripts."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.home = self.root / "usr/lib/nexus-agent"
        self.upgrade = self.root / "var/lib/nexus-upgrade"
        self.bin = folder / "bin"
        for path in (self.home, self.root / "run/systemd/system", self.root / "unit", self.bin):
            path.mkdir(parents=True)
        self.put("systemctl", SYSTEMCTL)
        for name in RECORDED:
            self.put(name, f'#!/bin/sh\necho "{name} $*" >>"$NEXUS_ROOT/calls"\n')
        for name in ("layout.sh", "trial", "failed"):
            shutil.copy(PARTS / name, self.home)
        self.settings("mqtts://broker.shop.example:8883")
        self.unit("inactive")

    def put(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def settings(self, broker: str) -> None:
        file = self.root / "etc/nexus/agent.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'[broker]\n# url = "wss://broker.example/mqtt"\nurl = "{broker}"\n')

    def unit(self, state: str, *, up_s: float = 0, restarts: int = 0) -> None:
        """What systemd says of the agent: its state, for how long it is up, how often restarted."""
        boot_s = float(Path("/proc/uptime").read_text().split()[0])
        facts = {
            "ActiveState": state,
            "ActiveEnterTimestampMonotonic": int(max(0.0, boot_s - up_s) * 1e6),
            "NRestarts": restarts,
            "Result": "exit-code",
            "ExecMainStatus": 1,
        }
        for name, value in facts.items():
            (self.root / "unit" / name).write_text(f"{value}\n")

    def unpack(self, version: str) -> None:
        """What dpkg does between preinst and postinst: the new files come, the old ones go."""
        folder = self.home / "versions" / version / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "python").write_text(version)
        for other in (self.home / "versions").iterdir():
            if other.name != version:
                shutil.rmtree(other)

    def run(self, script: Path, *arguments: str, cut_at: int = 10_000) -> str:
        environ = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "NEXUS_ROOT": str(self.root),
            "CUT_AT": str(cut_at),
        }
        command = ["sh", str(script), *arguments]
        done = subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # a power cut takes the whole group
        )
        if done.returncode == -9:
            raise PowerCutError
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def maintain(self, name: str, version: str, *arguments: str, cut_at: int = 10_000) -> str:
        layout = (PARTS / "layout.sh").read_text()
        text = (PARTS / "agent" / name).read_text().replace("@VERSION@", version)
        script = self.root.parent / name
        script.write_text(text.replace(". ./layout.sh\n", layout))
        return self.run(script, *arguments, cut_at=cut_at)

    def install(self, version: str) -> str:
        self.maintain("preinst", version, "install")
        self.unpack(version)
        return self.maintain("postinst", version, "configure", "")

    def upgrade_to(self, version: str, before: str = OLD, *, cut_at: int = 10_000) -> str:
        self.maintain("preinst", version, "upgrade", before, version, cut_at=cut_at)
        self.unpack(version)
        return self.maintain("postinst", version, "configure", before, cut_at=cut_at)

    def helper(self, name: str, *, cut_at: int = 10_000) -> str:
        return self.run(self.home / name, cut_at=cut_at)

    @property
    def current(self) -> str:
        return str((self.home / "current").readlink())

    @property
    def runs(self) -> str:
        """The version that a start would run now."""
        return (self.home / "current/bin/python").read_text()

    @property
    def on_trial(self) -> list[str]:
        marker = self.upgrade / "trial"
        return marker.read_text().split() if marker.exists() else []

    @property
    def started(self) -> str | None:
        """What `current` was when the agent was last started; None if it was stopped since."""
        file = self.root / "started"
        return file.read_text().strip() if file.exists() else None

    def calls(self) -> list[str]:
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def kept(self) -> list[str]:
        return [path.name for path in (self.home / "kept").iterdir()]


class PowerCutError(Exception):
    """The script was killed by its cut_at-th command."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def upgraded(machine: Machine) -> Machine:
    """A running agent that was upgraded and is on trial."""
    machine.install(OLD)
    machine.unit("active")
    machine.upgrade_to(NEW)
    return machine


# -- the first time ------------------------------------------------------------------------------


def test_a_first_installation_starts_an_agent_that_knows_its_broker(machine: Machine) -> None:
    machine.install(OLD)
    assert (machine.current, machine.started) == (f"versions/{OLD}", f"versions/{OLD}")
    assert machine.on_trial == []


def test_a_first_installation_with_the_sample_broker_says_what_to_edit(machine: Machine) -> None:
    machine.settings("mqtts://broker.example:8883")
    told = machine.install(OLD)
    assert "name your broker in /etc/nexus/agent.toml" in told
    assert machine.started is None
    assert any(call.startswith("enable") for call in machine.calls())


def test_without_a_running_systemd_nothing_is_started(machine: Machine) -> None:
    (machine.root / "run/systemd/system").rmdir()
    machine.install(OLD)
    machine.upgrade_to(NEW)
    told = [call.split()[0] for call in machine.calls()]
    assert machine.runs == NEW
    assert {"start", "stop", "restart", "daemon-reload"}.isdisjoint(told)


# -- an upgrade ----------------------------------------------------------------------------------


def test_an_upgrade_runs_the_kept_version_until_the_new_one_is_there(machine: Machine) -> None:
    machine.install(OLD)
    original = (machine.home / "current/bin/python").stat().st_ino
    machine.maintain("preinst", NEW, "upgrade", OLD, NEW)
    assert machine.current == f"kept/{OLD}"
    assert (machine.home / "current/bin/python").stat().st_ino == original
    machine.unpack(NEW)
    assert machine.runs == OLD


def test_an_upgrade_of_a_running_agent_is_a_trial(upgraded: Machine) -> None:
    assert (upgraded.current, upgraded.started) == (f"versions/{NEW}", f"versions/{NEW}")
    assert upgraded.on_trial == [NEW, OLD]
    assert upgraded.kept() == [OLD]
    assert "restart nexus-agent-trial.timer" in upgraded.calls()


def test_an_upgrade_of_a_stopped_agent_starts_nothing(machine: Machine) -> None:
    machine.install(OLD)
    (machine.root / "started").unlink()
    machine.upgrade_to(NEW)
    assert (machine.runs, machine.started, machine.on_trial) == (NEW, None, [])


def test_an_agent_that_crashes_is_started_by_its_upgrade(machine: Machine) -> None:
    machine.install(OLD)
    machine.unit("failed")
    machine.upgrade_to(NEW)
    assert machine.started == f"versions/{NEW}"


def test_an_upgrade_keeps_the_last_version_that_has_passed(upgraded: Machine) -> None:
    upgraded.upgrade_to("0.1.2", NEW)
    assert upgraded.kept() == [OLD]
    assert upgraded.on_trial == ["0.1.2", OLD]


def test_an_upgrade_that_dpkg_gives_up_leaves_the_version_before(machine: Machine) -> None:
    machine.install(OLD)
    machine.maintain("preinst", NEW, "upgrade", OLD, NEW)
    machine.maintain("postinst", OLD, "abort-upgrade", NEW)
    assert machine.runs == OLD


def test_the_same_version_again_is_a_trial_like_any_other(machine: Machine) -> None:
    machine.install(OLD)
    machine.unit("active")
    machine.upgrade_to(OLD)
    assert machine.on_trial == [OLD, OLD]
    machine.unit("failed")
    machine.helper("failed")
    assert machine.current == f"kept/{OLD}"


# -- the trial -----------------------------------------------------------------------------------


def test_a_version_that_stays_up_has_passed(upgraded: Machine) -> None:
    upgraded.unit("active", up_s=61)
    upgraded.helper("trial")
    assert (upgraded.on_trial, upgraded.runs, upgraded.kept()) == ([], NEW, [OLD])
    assert "stop --no-block nexus-agent-trial.timer" in upgraded.calls()


@pytest.mark.parametrize(("state", "up_s"), [("active", 50), ("activating", 90), ("inactive", 90)])
def test_a_version_that_is_not_yet_up_for_long_stays_on_trial(
    state: str, up_s: float, upgraded: Machine
) -> None:
    upgraded.unit(state, up_s=up_s, restarts=2)
    upgraded.helper("trial")
    assert (upgraded.on_trial, upgraded.runs) == ([NEW, OLD], NEW)


def test_a_version_that_is_restarted_again_and_again_has_failed(upgraded: Machine) -> None:
    upgraded.unit("activating", restarts=3)
    upgraded.helper("trial")
    report = json.loads((upgraded.upgrade / "rollback.json").read_text())
    assert (upgraded.runs, upgraded.started) == (OLD, f"kept/{OLD}")
    assert report["reason"] == "restarted 3 times without staying up for 60 s: exit-code"


def test_a_version_that_fails_on_trial_is_taken_back_and_the_reason_is_kept(
    upgraded: Machine,
) -> None:
    upgraded.unit("failed")
    upgraded.helper("failed")
    report = json.loads((upgraded.upgrade / "rollback.json").read_text())
    assert (upgraded.runs, upgraded.started) == (OLD, f"kept/{OLD}")
    assert upgraded.on_trial == []
    assert (report["from"], report["to"]) == (NEW, OLD)
    assert report["reason"] == "did not stay up: exit-code, status 1"
    assert len(report["id"]) == 16


def test_two_ways_back_have_two_ids(upgraded: Machine) -> None:
    ids = set()
    for _ in range(2):
        upgraded.upgrade_to(NEW)
        upgraded.unit("failed")
        upgraded.helper("failed")
        ids.add(json.loads((upgraded.upgrade / "rollback.json").read_text())["id"])
    assert len(ids) == 2


def test_a_report_that_cannot_be_written_does_not_bar_the_way_back(upgraded: Machine) -> None:
    (upgraded.upgrade / "rollback.next.new").mkdir()
    upgraded.unit("failed")
    upgraded.helper("failed")
    assert (upgraded.runs, upgraded.started) == (OLD, f"kept/{OLD}")


def test_an_upgrade_after_a_way_back_keeps_what_ran(upgraded: Machine) -> None:
    upgraded.unit("failed")
    upgraded.helper("failed")
    upgraded.upgrade_to("0.1.2", NEW)
    assert upgraded.on_trial == ["0.1.2", OLD]
    assert upgraded.kept() == [OLD]


def test_an_agent_that_fails_with_no_trial_is_started_again_after_a_pause(machine: Machine) -> None:
    machine.install(OLD)
    machine.unit("failed")
    machine.helper("failed")
    assert machine.calls()[-4:] == [
        "sleep 60",
        "is-failed --quiet nexus-agent.service",
        "reset-failed nexus-agent.service",
        "start --no-block nexus-agent.service",
    ]


def test_an_agent_that_somebody_started_meanwhile_is_left_alone(machine: Machine) -> None:
    machine.install(OLD)
    machine.unit("failed")
    machine.put("sleep", '#!/bin/sh\necho active >"$NEXUS_ROOT/unit/ActiveState"\n')
    machine.helper("failed")
    assert machine.calls()[-1] == "is-failed --quiet nexus-agent.service"


def test_a_version_on_trial_that_runs_is_not_taken_back(upgraded: Machine) -> None:
    """The helper is tried again when it could not end; by then the agent may be up."""
    upgraded.helper("failed")
    assert (upgraded.runs, upgraded.on_trial) == (NEW, [NEW, OLD])


# -- removal -------------------------------------------------------------------------------------


def test_removal_keeps_settings_and_state_and_a_purge_takes_them(upgraded: Machine) -> None:
    state = upgraded.root / "var/lib/nexus"
    state.mkdir()
    upgraded.maintain("prerm", NEW, "remove")
    upgraded.maintain("postrm", NEW, "remove")
    settings = upgraded.root / "etc/nexus/agent.toml"
    assert (upgraded.home.exists(), settings.exists(), state.exists()) == (False, True, True)
    upgraded.maintain("postrm", NEW, "purge")
    left = [settings.parent, state, upgraded.upgrade]
    assert [path for path in left if path.exists()] == []


# -- power cuts ----------------------------------------------------------------------------------


def act(machine: Machine, helper: str | None, cut_at: int) -> None:
    """An upgrade, or the helper's way back, with the power gone at the cut_at-th command."""
    (machine.root / "count").write_text("0")
    if helper is None:
        machine.upgrade_to(NEW, cut_at=cut_at)
    else:
        # After a way back that was cut short it is the timer that finds the marker.
        machine.helper(helper if machine.runs == NEW else "trial", cut_at=cut_at)


def lay_trap(machine: Machine) -> None:
    """Let every command that changes or asks the disk count."""
    for name in ("cat", "cp", "ln", "mkdir", "mv", "rm", "sync", "readlink"):
        machine.put(name, CUT.replace("@REAL@", str(shutil.which(name))))
    played = SYSTEMCTL
    for name in ("cat", "rm", "readlink"):
        played = played.replace(f"{name} ", f"{shutil.which(name)} ")
    machine.put("systemctl", played)


@pytest.mark.parametrize("helper", [None, "failed"])
def test_a_power_cut_between_any_two_commands_leaves_something_to_start(
    helper: str | None, tmp_path: Path
) -> None:
    """Of an upgrade, and of a way back; and the next time comes to its end."""
    for cut_at in range(1, 60):
        machine = Machine(tmp_path / str(cut_at))
        machine.install(OLD)
        machine.unit("active")
        if helper:
            machine.upgrade_to(NEW)
            machine.unit("failed")
        lay_trap(machine)
        try:
            act(machine, helper, cut_at)
        except PowerCutError:
            assert machine.runs in {OLD, NEW}, f"cut at {cut_at}"
            act(machine, helper, 10_000)
        else:
            assert cut_at > 10
            return
        assert machine.runs == (OLD if helper else NEW), f"cut at {cut_at}"
        assert (machine.upgrade / "rollback.json").exists() == bool(helper), f"cut at {cut_at}"
    pytest.fail("never came to its end")
