"""What `nexus plugin new` makes runs and passes at once, or is not made at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nexus_agent import discovery
from nexus_agent.workbench import scaffold
from nexus_agent.workbench.check import check
from nexus_agent.workbench.scaffold import ScaffoldError


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scaffold.make("coolant_temp", tmp_path_factory.mktemp("bundles"))


def test_it_has_all_that_a_bundle_needs_and_no_gap_is_left_open(made: Path) -> None:
    files = {file.name: file.read_text("utf-8") for file in made.iterdir()}

    assert set(files) == {
        *("plugin.toml", "coolant_temp.py", "sample.toml", "README.md"),
        *("test_coolant_temp.py", "pytest.ini"),
    }
    assert [name for name, text in files.items() if "$" in text] == []
    assert [file.name for file in made.parent.iterdir()] == ["coolant_temp"]


def test_it_passes_every_check(made: Path) -> None:
    found = list(check(discovery.bundle(made)))

    assert [finding for finding in found if not finding.ok] == []
    assert found[-1].check == "events"


def test_its_tests_pass(made: Path) -> None:
    assert "5 passed" in run(made, "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize(
    "options",
    [
        ("format", "--check"),
        ("check", "--select=ALL", "--ignore=ANN401,COM812,CPY,D,S101,PLR2004,TC"),
    ],
    ids=lambda options: options[0],
)
def test_its_code_is_clean(made: Path, options: tuple[str, ...]) -> None:
    run(made, "ruff", *options, "--isolated", ".")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("9x", "1 to 32 lower-case letters"),
        ("Upper", "1 to 32 lower-case letters"),
        ("../up", "1 to 32 lower-case letters"),
        ("a" * 33, "1 to 32 lower-case letters"),
        ("host", "installed already"),
        ("json", "something else in Python"),
        ("class", "something else in Python"),
        ("pydantic", "something else in Python"),
        ("taken", "is there already"),
    ],
)
def test_a_wrong_or_taken_name_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "taken").mkdir()

    with pytest.raises(ScaffoldError, match=words):
        scaffold.make(name, tmp_path)

    assert [file.name for file in tmp_path.rglob("*")] == ["taken"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError, match="cannot be made: No such file"):
        scaffold.make("probe", tmp_path / "gone")
