"""Every way in which a plugin breaks the contract is found, and named with its place."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.unit.agent.workbench.conftest import Bundle

from nexus_agent import discovery
from nexus_agent.workbench.check import Patience, check
from nexus_agent.workbench.declared import HEADINGS
from nexus_agent.workbench.findings import Finding

WAITS = "await self.context.sleep(1)\n"
DEAF = """
while True:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass
"""
FOREVER = "while True:\n    await self.context.sleep(1)\n"


PATIENCE = Patience(limit=60.0, within=1.0)


def checked(folder: Path, patience: Patience = PATIENCE) -> dict[str, Finding]:
    """Findings by their check."""
    return {finding.check: finding for finding in check(discovery.bundle(folder), patience)}


def failures(found: Mapping[str, Finding]) -> dict[str, str]:
    return {finding.check: finding.text for finding in found.values() if not finding.ok}


def test_a_well_behaved_plugin_passes_every_check(bundle: Bundle) -> None:
    found = checked(
        bundle("""
            while True:
                await self.context.emit("probe.reading", 1)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.context.run_blocking(time.sleep, 0.001))
                    with open("/dev/null"):
                        await self.context.sleep(1)
        """)
    )

    assert failures(found) == {}
    assert list(found) == [
        *("manifest", "import", "texts", "declarations", "readme", "sample", "refusal"),
        *("validation", "start", "cancel", "leftovers", "blocking", "events"),
    ]
    assert found["cancel"].text.startswith("ends at each of 50 awaits")


@pytest.mark.parametrize(
    ("body", "failing", "words"),
    [
        ("raise ValueError('odd')", "start", "raised ValueError: odd, at probe.py:21 in run"),
        (WAITS + "raise SystemExit(3)", "start", "SystemExit(3), at probe.py:22 in run"),
        (
            "try:\n    await asyncio.sleep(60)\nfinally:\n    1 / 0",
            "cancel",
            "cancelled at probe.py:22 in run, it raised ZeroDivisionError",
        ),
        (
            DEAF,
            "cancel",
            "does not end within 1 s when it is cancelled at probe.py:24 in run",
        ),
        (
            "self.kept = asyncio.ensure_future(asyncio.sleep(60))\n" + FOREVER,
            "leftovers",
            "a task still runs",
        ),
        (
            "threading.Thread(target=time.sleep, args=(60,), daemon=True, name='mine').start()\n"
            + FOREVER,
            "leftovers",
            "a thread still runs: mine",
        ),
        (
            "kept.append(os.open('/dev/null', 0))\n" + FOREVER,
            "leftovers",
            "left open: /dev/null",
        ),
        ("file = open('/dev/null')\n" + FOREVER, "leftovers", "unclosed file"),
        ("await self.context.run_blocking(time.sleep, 60)", "leftovers", "a thread still runs"),
        (WAITS + "time.sleep(0.3)", "blocking", "at probe.py:22 in run"),
        (WAITS + "while True: pass", "blocking", "stood still for 2.0 s, at probe.py:22 in run"),
        (
            WAITS + "await self.context.emit('Wrong', 1)",
            "events",
            "event type 'Wrong'",
        ),
        (
            "await self.context.emit('probe.reading', float('nan'))",
            "events",
            "NaN or infinity",
        ),
        (
            "await self.context.emit('probe.other', 1)\n" + FOREVER,
            "events",
            "emits 'probe.other' undeclared",
        ),
        ("ctypes.string_at(0)", "lifecycle", "SIGSEGV ended the process, at probe.py:21 in run"),
        ("os._exit(0)", "lifecycle", "the process ended itself, with exit code 0"),
        ("os.kill(os.getpid(), 9)", "lifecycle", "SIGKILL ended the process"),
    ],
)
def test_what_it_does_wrong_at_work_is_found(
    bundle: Bundle, body: str, failing: str, words: str
) -> None:
    found = failures(
        checked(bundle(body, **{"\nclass ProbeSettings": "kept = []\nclass ProbeSettings"}))
    )

    assert words in found[failing]


@pytest.mark.parametrize(
    "body", ["raise RetryError('no device')", "raise FatalError('no')", "return", WAITS]
)
def test_ends_that_the_contract_knows_are_no_failures(bundle: Bundle, body: str) -> None:
    assert failures(checked(bundle(body))) == {}


@pytest.mark.parametrize(
    ("old", "new", "failing", "words"),
    [
        ('version = "0.1"', 'version = " "', "texts", "version: empty"),
        ('emits = ("probe.reading",)', 'emits = ("Probe",)', "declarations", "'Probe'"),
        ('emits = ("probe.reading",)', 'emits = "probe.x"', "declarations", "'probe.x'"),
        ('devices = ("path",)', 'devices = ("port",)', "declarations", "no setting 'port'"),
        ('devices = ("path",)', 'live = frozenset({"x"})', "declarations", "no setting 'x'"),
        ('devices = ("path",)', "deadline_s = 0", "declarations", "deadline_s is 0"),
        ('devices = ("path",)', 'requires = ("probe",)', "declarations", "requires: 'probe'"),
        ("    path: Path", "    path: Path\n    other: int = 1", "readme", "`other`"),
        ("    path: Path", "    path: Path\n    needed: int", "sample", "needed: is missing"),
        ("    path: Path", "    path: object", "refusal", ""),
        (
            "    path: Path",
            "    model_config = {'extra': 'ignore'}\n    path: Path",
            "refusal",
            "nonsense = True: is taken",
        ),
    ],
)
def test_what_it_says_of_itself_is_checked(
    bundle: Bundle, old: str, new: str, failing: str, words: str
) -> None:
    found = failures(checked(bundle("return", **{old: new})))

    if words:
        assert words in found[failing]
    else:
        assert failing not in found, "a setting that may be anything is nobody's mistake"


@pytest.mark.parametrize(
    ("check_path", "failing", "words"),
    [
        (
            "return path.strip()",
            "refusal",
            "the model raises AttributeError at probe.py:11 in strict",
        ),
        (
            "return path if Path(path).exists() else 1 / 0",
            "validation",
            "os.stat PosixPath('/proc/loadavg') at probe.py:11 in strict",
        ),
        (
            "open(path).close(); return path",
            "validation",
            "open '/proc/loadavg' at probe.py:11 in strict",
        ),
        (
            "socket.socket().connect_ex(('127.0.0.1', 9)); return path",
            "validation",
            "socket.__new__",
        ),
        ("subprocess.run(['true']); return path", "validation", "at probe.py:11 in strict"),
    ],
)
def test_what_its_validators_do_is_checked(
    bundle: Bundle, check_path: str, failing: str, words: str
) -> None:
    field = "    interval_s: float = 10.0"
    validator = f"""{field}
    @field_validator("path", mode="before")
    def strict(cls, path): {check_path}"""

    assert words in failures(checked(bundle("return", **{field: validator})))[failing]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("import sys; sys.exit(1)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        ("Probe = 1", "is not a Plugin class"),
    ],
)
def test_code_that_cannot_be_imported_is_one_failure(bundle: Bundle, code: str, words: str) -> None:
    folder = bundle("return")
    (folder / "probe.py").write_text(code)

    [(failing, text)] = failures(checked(folder)).items()

    assert failing == "import"
    assert words in text


def test_an_import_that_never_ends_is_cut_off_and_its_place_named(bundle: Bundle) -> None:
    folder = bundle("return")
    (folder / "probe.py").write_text("import time\ntime.sleep(600)\n")

    [(failing, text)] = failures(checked(folder, Patience(limit=1.0))).items()

    assert (failing, text) == ("import", "it took more than 1 s, at probe.py:2 in <module>")


def test_what_it_has_started_does_not_outlive_the_check(bundle: Bundle) -> None:
    folder = bundle("return")
    note = folder / "pid"
    (folder / "probe.py").write_text(
        f"import os, subprocess\nchild = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\nos._exit(1)\n"
    )

    checked(folder)

    # SIGKILL is delivered when the kernel comes to it.
    until = time.monotonic() + 10
    while (state := _state(note.read_text())) not in {"", "Z"} and time.monotonic() < until:
        pass  # ps takes its time
    assert state in {"", "Z"}


def _state(pid: str) -> str:
    """The first letter of what ps(1) says; empty where there is no such process."""
    command = ["ps", "-o", "stat=", "-p", pid]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()[:1]


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_readme_without_one_of_the_headings_fails(bundle: Bundle, heading: str) -> None:
    folder = bundle("return")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace(f"## {heading}\n", ""))

    assert failures(checked(folder)) == {"readme": f"no `## {heading}`"}


@pytest.mark.parametrize(
    ("file", "failing", "words"),
    [
        ("README.md", "readme", "there is no README.md"),
        ("sample.toml", "sample", "path: is missing"),
    ],
)
def test_a_missing_file_fails(bundle: Bundle, file: str, failing: str, words: str) -> None:
    folder = bundle("return")
    (folder / file).unlink()

    assert words in failures(checked(folder))[failing]


def test_a_plugin_may_print_what_it_likes(bundle: Bundle) -> None:
    found = checked(bundle("print('{\"end\": true}', flush=True)\nos.write(2, b'x' * 1000)"))

    assert failures(found) == {}
