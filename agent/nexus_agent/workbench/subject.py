"""The plugin on the workbench: its code, the files beside it, and settings to start it with."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Final, TypeGuard

from nexus_agent import discovery
from nexus_agent.discovery import Code, DiscoveryError
from nexus_agent.plugin import Plugin
from nexus_agent.sections import OWN_KEYS

SAMPLE: Final = "sample.toml"
README: Final = "README.md"

_CORO_CHAINS: Final = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"))


class SubjectError(Exception):
    """The plugin, or settings for it, cannot be had; the message is one line."""


def find(what: str) -> Code:
    """The plugin that a person means by *what*: a bundle folder, or a name. Raises SubjectError.

    A name is an installed plugin's, or that of a bundle folder here.
    """
    folder = Path(what)
    try:
        if "/" in what or what in {".", ".."}:
            return discovery.bundle(folder.resolve())
        return discovery.find(what, Path.cwd())
    except DiscoveryError as error:
        raise SubjectError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Subject:
    """A loaded plugin. folder: where its code, sample.toml and README.md are."""

    plugin: type[Plugin[Any]]
    folder: Path

    def text(self, name: str) -> str | None:
        """A file beside the code; None if it is not there. Raises SubjectError."""
        file = self.folder / name
        return read(file) if file.exists() else None

    def sample(self) -> dict[str, Any] | None:
        """The keys that sample.toml sets; None without one. Raises SubjectError."""
        text = self.text(SAMPLE)
        return None if text is None else section(text, self.plugin.name, self.folder / SAMPLE)

    def place(self, code: CodeType, line: int | None) -> str | None:
        """`file:line in function`, if *code* is the plugin's own."""
        file = Path(code.co_filename)
        if not file.is_relative_to(self.folder):
            return None
        return f"{file.relative_to(self.folder)}:{line} in {code.co_name}"

    def place_of_error(self, error: BaseException) -> str:
        """Where the plugin's own code was when *error* was raised."""
        return self._innermost(error.__traceback__) or self.folder.name

    def _innermost(self, trace: TracebackType | None) -> str | None:
        found = None
        while trace is not None:
            found = self.place(trace.tb_frame.f_code, trace.tb_lineno) or found
            trace = trace.tb_next
        return found

    def place_of_wait(self, coroutine: object) -> str:
        """Where the plugin's own code waits in a suspended coroutine."""
        found = None
        while coroutine is not None:
            for frame_name, next_name in _CORO_CHAINS:
                if hasattr(coroutine, frame_name):
                    frame = getattr(coroutine, frame_name)
                    if frame is not None:
                        found = self.place(frame.f_code, frame.f_lineno) or found
                    coroutine = getattr(coroutine, next_name)
                    break
            else:
                break
        return found or self.folder.name


def load(code: Code) -> Subject:
    """Import the plugin. Raises SubjectError."""
    try:
        plugin = discovery.load(code)
    except DiscoveryError as error:
        raise SubjectError(str(error)) from error
    file = import_module(code.module).__file__
    return Subject(plugin, code.folder or Path(file or ".").resolve().parent)


def read(file: Path) -> str:
    """The text of a file. Raises SubjectError."""
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise SubjectError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SubjectError(f"{file}: is not UTF-8 text") from None


def section(text: str, name: str, source: Path) -> dict[str, Any]:
    """The plugin's own keys of `[plugins.<name>]` in TOML *text*. Raises SubjectError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SubjectError(f"{source}: is not TOML: {error}") from None
    plugins = document.get("plugins")
    found = plugins.get(name) if _is_table(plugins) else None
    if not _is_table(found):
        raise SubjectError(f"{source}: has no section [plugins.{name}]")
    return {key: value for key, value in found.items() if key not in OWN_KEYS}


def with_values(keys: Mapping[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """*keys* with each `key=value` of *pairs* over them, as `NEXUS_` variables are read.

    A value is text, which the model reads as its type; a list is written as JSON. Raises
    SubjectError.
    """
    found = dict(keys)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise SubjectError(f"--set takes key=value, not {pair!r}")
        found[key] = value
        if value.startswith("["):
            with suppress(ValueError, RecursionError):
                found[key] = json.loads(value)
    return found


def _is_table(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
