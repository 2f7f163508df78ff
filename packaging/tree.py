"""A Python of its own in a folder: what the lock names and the project's wheel, byte-compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
MINOR: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The minor version that everything is built for: C extensions fit no other."""
ALONE: Final = f"include-system-site-packages = false\nversion = {MINOR}\n"
"""What pyvenv.cfg says of a Python that sees only its own packages."""
PACKAGES: Final = (
    "agent/nexus_agent",
    "plugins/nexus_plugins",
    "console/nexus_console",
    "migrations/nexus_migrations",
)
JUNK: Final = ("RECORD", "REQUESTED", "INSTALLER", "direct_url.json")
"""What pip notes beside a package; some of it names the machine that built."""
SOURCES: Final = frozenset({".c", ".h", ".pyx", ".pxd", ".pxi"})
"""What an extension was compiled from, left in some wheels."""


def epoch() -> int:
    """Unix seconds that every built file bears: SOURCE_DATE_EPOCH, or the last commit's."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    return int(_output("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))


def architecture() -> str:
    """Debian's name for this machine's architecture, such as `amd64`."""
    return _output("dpkg", "--print-architecture")


def build_wheel(version: str, build: Path) -> Path:
    """The project's wheel as *version*, from a copy of its sources in *build*."""
    sources, out = build / "sources", build / "wheel"
    for folder in (sources, out):
        shutil.rmtree(folder, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    before, rest = project.split('\nversion = "', 1)
    (sources / "pyproject.toml").write_text(
        f'{before}\nversion = "{version}"{rest.partition(chr(34))[2]}', "utf-8"
    )
    command = ["-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    run(sys.executable, *command, cwd=sources)
    [wheel] = out.glob("*.whl")
    return wheel


def fetch_wheels(lock: Path) -> Path:
    """Every wheel that *lock* names, checked against its hashes; once, until the lock changes."""
    into = ROOT / "build" / "wheels" / lock.stem
    fetched = into / "lock.txt"
    if not fetched.is_file() or fetched.read_bytes() != lock.read_bytes():
        shutil.rmtree(into, ignore_errors=True)
        pip("download", "--only-binary=:all:", "--require-hashes", "-r", lock, "-d", into)
        shutil.copy(lock, fetched)
    return into


def build_environment(into: Path, lock: Path, wheels: Path, wheel: Path, home: str) -> None:
    """A virtual environment at *into* that runs at *home* on the system's Python.

    It has what *lock* names, taken from *wheels*, and *wheel*; no pip, tests, caches or symbols for
    debuggers. Its bytecode is never checked against its sources, so that nothing that runs ever
    writes here.
    """
    site = into / "lib" / f"python{MINOR}" / "site-packages"
    offline = ("install", "--no-index", "--no-deps", "--no-compile", "--target", site)
    pip(*offline, "--require-hashes", "--find-links", wheels, "-r", lock)
    pip(*offline, wheel)
    for path in list(_useless(site)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run("strip", "--strip-debug", *map(str, sorted(site.rglob("*.so"))))
    (into / "bin").mkdir()
    (into / "bin" / "python").symlink_to(f"/usr/bin/python{MINOR}")
    (into / "pyvenv.cfg").write_text(f"home = /usr/bin\n{ALONE}", "utf-8")
    compile_to = ["-s", str(into), "-p", home, "--invalidation-mode", "unchecked-hash"]
    run(sys.executable, "-m", "compileall", "-q", *compile_to, str(site))


def pip(*arguments: str | Path) -> None:
    quiet = ("--quiet", "--quiet", "--disable-pip-version-check", "--no-input")
    run(sys.executable, "-m", "pip", *map(str, arguments), *quiet)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a tool that takes its time, and the order of its sets, from its environment."""
    fixed = {"SOURCE_DATE_EPOCH": str(epoch()), "PYTHONHASHSEED": "0"}
    subprocess.run(command, cwd=cwd, check=True, env={**os.environ, **fixed})


def settle(tree: Path) -> None:
    """Give every path in *tree* one time and, whatever the umask was, one of four modes."""
    when = epoch()
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            private = path.stat().st_mode & 0o007 == 0
            path.chmod((0o755 if executable else 0o644) & (0o750 if private else 0o777))
        os.utime(path, (when, when), follow_symlinks=False)


def _useless(site: Path) -> Iterator[Path]:
    yield site / "bin"
    for path in site.rglob("*"):
        inside = {"tests", "test"}.intersection(path.relative_to(site).parts[:-1])
        useless = path.name in {"tests", "test", *JUNK} or path.suffix in SOURCES
        if useless and not inside:
            yield path


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
