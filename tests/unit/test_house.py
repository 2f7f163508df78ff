"""The repository itself keeps its word: locks, package, commands, papers."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import pytest
from alembic.script import ScriptDirectory
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

import nexus_migrations
from nexus_agent import discovery

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "nexus-core-agent"
PACKAGES = {
    "nexus_agent": "agent",
    "nexus_plugins": "plugins",
    "nexus_console": "console",
    "nexus_migrations": "migrations",
}
LOCKS = {
    "dev": ("obd", "ble", "can", "console", "postgresql", "demo", "docs", "dev"),
    "agent": ("obd", "ble", "can"),
    "console": ("console", "postgresql"),
}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def tracked_files() -> list[Path]:
    """Every file that is or would be committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def locked(name: str) -> dict[str, str]:
    """Versions of a lock file by canonical name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pairs}


def declared(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for: the base and some extras."""
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


# -- lock files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [*LOCKS, "node"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("lock", [*LOCKS, "node"])
def test_a_lock_names_no_index_url_or_path(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text("utf-8")
    assert re.findall(r"^-.*|.*://.*|.*\s/\w.*", text, re.MULTILINE) == []


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_a_lock_fits_what_the_project_declares(lock: str, extras: tuple[str, ...]) -> None:
    versions = locked(lock)
    wrong = [
        str(requirement)
        for requirement in declared(*extras)
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), ""))
    ]
    assert wrong == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["agent", "console"])
def test_what_is_deployed_is_what_is_tested(lock: str) -> None:
    assert locked(lock).items() <= locked("dev").items()


def test_the_lock_of_the_page_has_hashes_and_names_no_registry() -> None:
    lock = json.loads((ROOT / "console/ui/package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


# -- the package ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "root"), PACKAGES.items())
def test_the_code_under_test_is_the_one_that_was_meant(package: str, root: str) -> None:
    """`make test-wheel` tests what was installed, `make test` the sources; never the other."""
    found = Path(importlib.import_module(package).__path__[0]).resolve()
    if os.environ.get("NEXUS_TESTED") == "wheel":
        assert found == Path(sysconfig.get_path("purelib")).resolve() / package
        assert str(ROOT / root) not in sys.path
    else:
        assert found == ROOT / root / package


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_may_read_the_package(package: str) -> None:
    assert (Path(importlib.import_module(package).__path__[0]) / "py.typed").is_file()


@pytest.mark.parametrize("which", nexus_migrations.HEADS)
def test_the_migrations_travel_with_the_package(which: nexus_migrations.Which) -> None:
    scripts = ScriptDirectory(str(Path(nexus_migrations.__path__[0]) / which))
    assert scripts.get_heads() == [nexus_migrations.HEADS[which]]


def test_the_page_travels_with_the_package() -> None:
    folder = Path(importlib.import_module("nexus_console").__path__[0]) / "page"
    assert (folder / "index.html").is_file(), "run `make page`"
    assert list((folder / "assets").glob("*.js"))


@pytest.mark.parametrize("group", ["console_scripts", discovery.GROUP])
def test_every_entry_point_loads(group: str) -> None:
    entries = importlib.metadata.distribution(DISTRIBUTION).entry_points.select(group=group)
    assert [entry.name for entry in entries if not callable(entry.load())] == []
    assert len(entries) >= 2


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_every_command_explains_itself(command: str) -> None:
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / command, "--help"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:")


@pytest.mark.parametrize(
    ("part", "lock"),
    [
        ("migrations/nexus_migrations", "agent"),
        ("migrations/nexus_migrations", "console"),
        ("agent/nexus_agent", "agent"),
        ("plugins/nexus_plugins", "agent"),
        ("console/nexus_console", "console"),
    ],
)
def test_a_part_imports_only_what_its_installation_brings(part: str, lock: str) -> None:
    """A box has neither the console's nor the developers' packages: no import may hope for them."""
    distributions = importlib.metadata.packages_distributions()
    allowed = locked(lock).keys()
    stray = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / part).rglob("*.py")
        for module in imported_by(path)
        if module not in sys.stdlib_module_names and module not in PACKAGES
        if allowed.isdisjoint(canonicalize_name(name) for name in distributions.get(module, []))
    }
    assert sorted(stray) == []


def imported_by(path: Path) -> Iterator[str]:
    """Top-level names of the modules that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("plugin", ["can_signals", "example", "host", "j1939", "obd", "uds"])
def test_a_plugin_brings_a_sample_that_its_own_settings_accept(plugin: str) -> None:
    folder = Path(importlib.import_module(f"nexus_plugins.{plugin}").__path__[0])
    sample = tomllib.loads((folder / "sample.toml").read_text("utf-8"))["plugins"][plugin]
    sample.pop("enabled", None)
    discovery.load(discovery.find(plugin)).settings_model.model_validate(sample)
    assert (folder / "README.md").is_file()


# -- the workshop --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["page", "demo", "smoke", "test", "check", "docs", "reference", "bench", "lock", "clean"],
)
def test_the_makefile_has_what_the_readers_are_told(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:.* ## .+", makefile, re.MULTILINE)
    assert re.search(rf"^\.PHONY:.*\b{target}\b", makefile, re.MULTILINE)


def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted", "registry." + "npmjs"]
    paths = [r"(?<![\w.-])/work" + r"/\w", r"(?<![\w.-])/root" + r"/[\w.]", "file:///" + "opt"]
    pattern = re.compile("|".join([*map(re.escape, hosts), *paths]))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked_files()
        if (match := pattern.search(path.read_text("utf-8", errors="replace")))
    ]
    assert found == []


# -- the papers ----------------------------------------------------------------------------------

MARKDOWN = [path for path in tracked_files() if path.suffix == ".md"]


def test_the_first_screen_says_how_to_run_and_test_it() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:30])
    assert "make demo" in first_screen
    assert "make test" in first_screen


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)[^)]*\)", text)
    targets += re.findall(r'src="(?!https?:)([^"]+)"', text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def keys_of(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Every key of a settings model, dotted, without sections; a table or list of them is one."""
    for name, field in model.model_fields.items():
        named = get_origin(field.annotation) in {dict, tuple}
        sections = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel) and not named
        ]
        if sections:
            yield from keys_of(sections[0], f"{prefix}{name}.")
        elif name != "plugins":
            yield f"{prefix}{name}"


def undocumented(heading: str, keys: Iterator[str]) -> list[str]:
    """Keys that the reference's section of that heading does not name."""
    page = (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    section = re.split(r"^## ", page.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    return [key for key in keys if f"`{key}`" not in section]


@pytest.mark.parametrize(
    ("heading", "module", "name"),
    [
        ("agent.toml", "nexus_agent.config", "AgentConfig"),
        ("console.toml", "nexus_console.config", "ConsoleSettings"),
    ],
)
def test_every_setting_is_in_the_reference(heading: str, module: str, name: str) -> None:
    model = getattr(importlib.import_module(module), name)
    assert undocumented(heading, keys_of(model, "")) == []


@pytest.mark.parametrize("plugin", ["can_signals", "example", "host", "j1939", "obd", "uds"])
def test_every_setting_of_a_plugin_is_in_the_reference(plugin: str) -> None:
    model = discovery.load(discovery.find(plugin)).settings_model
    assert undocumented(f"The plugin `{plugin}`", keys_of(model, f"plugins.{plugin}.")) == []


def commands_of(group: click.Group, name: str) -> Iterator[str]:
    """Every command of a command-line program, with the groups before it."""
    for child, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{name} {child}")
        else:
            yield f"{name} {child}"


@pytest.mark.parametrize("program", PROJECT["scripts"])
def test_every_command_is_in_the_reference(program: str) -> None:
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    told = [
        re.sub(r" \[[^]]*\]", "", entry) for entry in re.findall(r"^\| `(.*?)`", page, re.MULTILINE)
    ]
    [entry] = importlib.metadata.entry_points(group="console_scripts", name=program)
    missing = [
        command
        for command in commands_of(entry.load(), program)
        if not any(f"{text} ".startswith(f"{command} ") for text in told)
    ]
    assert missing == []


def test_every_path_of_the_console_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/console-api.md").read_text("utf-8")
    create_api = importlib.import_module("nexus_console.api").create_api
    paths = create_api(services=None).openapi()["paths"]
    told = [
        f"{method.upper()} " + re.sub(r"\{\w+\}", "{id}", path.removeprefix("/api/v1"))
        for path, methods in paths.items()
        for method in methods
    ]
    assert [request for request in told if f"`{request}`" not in page] == []


def test_every_event_type_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/events.md").read_text("utf-8")
    emitted = {
        match
        for package, root in PACKAGES.items()
        for path in (ROOT / root / package).rglob("*.py")
        for match in re.findall(
            r'\b(?:emit|hand_over)\(\s*"([a-z_]+\.[a-z_.]+)"', path.read_text("utf-8")
        )
    }
    example = {"workshop.temperature"}  # the plugin contract's own illustration
    assert sorted(kind for kind in emitted - example if f"`{kind}`" not in page) == []


async def test_the_plugin_of_the_how_to_passes_its_own_test(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/write-a-plugin.md").read_text("utf-8")
    scope: dict[str, Any] = {"__name__": "example"}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "write-a-plugin.md", "exec", dont_inherit=True), scope)
    await scope["test_a_text_that_is_no_number_is_malformed"](tmp_path)
