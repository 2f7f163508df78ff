"""The Debian packages and the bundle, built for real and unpacked beside the machine's own files.

What needs a machine of its own (dpkg, systemd, users) is tried by `make test-systemd`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = "9.8.7"

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("dpkg-deb") is None or shutil.which("strip") is None,
        reason="no dpkg-deb or strip here",
    ),
]


def build(what: str, into: Path, *options: str) -> Path:
    """Build it as VERSION, fast; the wheels are fetched once for all builds of this test."""
    command = [sys.executable, str(ROOT / "packaging" / "build.py"), what, *options]
    done = subprocess.run(
        [*command, "--version", VERSION, "--level", "0", "--into", str(into)],
        check=False,
        capture_output=True,
        text=True,
        cwd=into,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Package:
    file: Path
    tree: Path
    """Where it was unpacked."""
    version: Path
    """Its environment below that."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module", params=["agent", "console"])
def package(request: pytest.FixtureRequest, workshop: Path) -> Package:
    tree = workshop / request.param
    file = build("deb", workshop, "--only", request.param)
    subprocess.run(["dpkg-deb", "--extract", str(file), str(tree)], check=True)
    [version] = tree.glob(f"usr/lib/nexus-*/versions/{VERSION}")
    return Package(file, tree, version)


def members(package: Package) -> list[list[str]]:
    """Mode, owner and path of everything in it."""
    listing = subprocess.run(
        ["dpkg-deb", "--contents", str(package.file)], check=True, capture_output=True, text=True
    ).stdout
    found = [line.split() for line in listing.splitlines()]
    return [[parts[0], parts[1], parts[5]] for parts in found]


def test_everything_is_roots_and_no_mode_comes_from_who_built(package: Package) -> None:
    entries = members(package)
    assert {owner for _, owner, _ in entries} == {"root/root"}
    modes = {mode for mode, _, path in entries if not path.startswith("./etc/")}
    assert modes == {"drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx"}


def test_settings_are_kept_from_other_eyes_and_over_upgrades(package: Package) -> None:
    control = subprocess.run(
        ["dpkg-deb", "--info", str(package.file), "conffiles"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    private = {
        path.lstrip("."): mode for mode, _, path in members(package) if path.endswith("toml")
    }
    etc = {path: mode for path, mode in private.items() if path.startswith("/etc/")}
    assert sorted(etc) == control
    assert set(etc.values()) == {"-rw-r-----"}


def test_it_runs_on_the_systems_python_and_sees_no_other_package(package: Package) -> None:
    assert str((package.version / "bin/python").readlink()) == f"/usr/bin/python{MINOR}"
    settings = (package.version / "pyvenv.cfg").read_text("utf-8")
    assert "home = /usr/bin\ninclude-system-site-packages = false\n" in settings


def test_it_brings_no_pip_tests_or_names_of_the_machine_that_built(package: Package) -> None:
    names = {path.name for path in package.version.rglob("*")}
    assert names.isdisjoint({"pip", "tests", "test", "RECORD", "direct_url.json", "INSTALLER"})
    grep = ["grep", "--recursive", "--files-with-matches", "--fixed-strings"]
    found = subprocess.run(
        [*grep, "-e", str(ROOT), "-e", str(package.tree.parent), str(package.tree)],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    assert found == ""


def test_every_module_has_bytecode_that_is_never_written_anew(package: Package) -> None:
    sources = [path for path in package.version.rglob("*.py") if path.stat().st_size]
    assert len(sources) > 100
    flags = set()
    for source in sources:
        file = Path(importlib.util.cache_from_source(str(source)))
        # PEP 552: bit 0 says that a hash is in the file, bit 1 that it is checked.
        flags.add(int.from_bytes(file.read_bytes()[4:8], "little"))
    assert flags == {1}


def test_two_builds_are_the_same(package: Package, workshop: Path) -> None:
    if "console" in package.file.name:
        pytest.skip("built by the same lines as the agent's")
    first = package.file.read_bytes()
    assert build("deb", workshop, "--only", "agent").read_bytes() == first


@pytest.mark.skipif(not Path(f"/usr/bin/python{MINOR}").exists(), reason="another Python's machine")
def test_its_commands_run_where_nothing_else_is_installed(package: Package) -> None:
    for wrapper in (package.tree / "usr/bin").iterdir():
        [module] = re.findall(r"-I -m (\S+)", wrapper.read_text("utf-8"))
        options = ["--help"] if wrapper.name == "nexus" else ["--version"]
        done = subprocess.run(
            [package.version / "bin/python", "-I", "-m", module, *options],
            check=False,
            capture_output=True,
            text=True,
            cwd=package.tree,
            env={"PATH": os.defpath},
        )
        assert done.returncode == 0, done.stderr
        expected = "Usage: nexus " if wrapper.name == "nexus" else f"{wrapper.name}, version 9.8.7"
        assert done.stdout.startswith(expected)


def test_a_running_version_writes_nothing_into_itself(package: Package) -> None:
    before = sorted(package.version.rglob("*"))
    module = "nexus_agent" if "agent" in package.file.name else "nexus_console"
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(package.version), module], check=True
    )
    assert sorted(package.version.rglob("*")) == before


IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
[site] = pathlib.Path(sys.argv[1]).glob("lib/*/site-packages")
sys.path.append(str(site))
package = importlib.import_module(sys.argv[2])
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_the_bundle_lists_the_hash_of_every_wheel(workshop: Path) -> None:
    file = build("bundle", workshop)
    with tarfile.open(file) as archive:
        names = [member.name.split("/", 1)[-1] for member in archive.getmembers()]
        archive.extractall(workshop / "bundle-tree", filter="data")
    [tree] = (workshop / "bundle-tree").iterdir()
    target = workshop / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--isolated", "--no-compile"]
    checked = ["--no-index", "--no-deps", "--require-hashes", "--find-links", str(tree / "wheels")]
    listed = ["-r", str(tree / "requirements.txt")]
    subprocess.run([*pip, *checked, *listed, "--target", str(target)], check=True)
    assert (target / "nexus_agent" / "app.py").is_file()
    assert {"install.sh", "files/usr/bin/nexus", "files/etc/nexus/agent.toml"} <= set(names)


def test_two_bundles_are_the_same(workshop: Path) -> None:
    first = build("bundle", workshop).read_bytes()
    assert build("bundle", workshop).read_bytes() == first
