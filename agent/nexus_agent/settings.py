"""Reading settings: a TOML file, then `NEXUS_…` environment variables over it, then defaults.

Shared by the agent and the console. Whatever is wrong becomes one line that names the source, the
key and what would be right; nothing is guessed.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

PREFIX: Final = "NEXUS_"
SEPARATOR: Final = "__"
_SHOWN: Final = 100
"""Characters of a wrong value that a message repeats."""


class SettingsError(Exception):
    """A setting is wrong; the message is one line for the person who wrote it."""


class Section(BaseModel):
    """Base of every section: unknown keys are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


M = TypeVar("M", bound=BaseModel)


def load(model: type[M], file: Path, environ: Mapping[str, str]) -> M:
    """Read *file* and *environ* into *model*.

    A variable is `NEXUS_` + the key's path in upper case with `__` between: `NEXUS_BROKER__URL`.
    It wins over the file, as everywhere. Variables without `__` belong to the commands and are
    left aside. Raises SettingsError.
    """
    document = _read(file)
    origins: dict[tuple[str, ...], str] = {}
    for path, variable in variables(environ).items():
        _put(document, path, environ[variable], variable, origins)
    return validate(model, document, str(file), origins)


def variables(environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """The variables of *environ* that set a key, by the key's path."""
    return {
        tuple(name.removeprefix(PREFIX).lower().split(SEPARATOR)): name
        for name in sorted(environ)
        if name.startswith(PREFIX) and SEPARATOR in name
    }


def validate(
    model: type[M],
    document: Mapping[str, Any],
    source: str,
    origins: Mapping[tuple[str, ...], str] | None = None,
    at: tuple[str, ...] = (),
) -> M:
    """Make *model* of *document*, which stands at key path *at* of *source*; or SettingsError."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = (*at, *(str(part) for part in first["loc"]))
        where = (origins or {}).get(path, source)
        raise SettingsError(f"{where}: {_dotted(path)}: {_reason(model, first)}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        # Also what tomllib lets through: numbers and nesting beyond Python's own limits.
        raise SettingsError(f"{file}: is not TOML: {error}") from None


def _put(
    document: dict[str, Any],
    path: tuple[str, ...],
    value: str,
    variable: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    """Set *value*, and note in *origins* what the variable brought: the key, and new tables."""
    origins[path] = variable
    table: Any = document
    for depth, part in enumerate(path[:-1], 1):
        if part not in table:
            origins[path[:depth]] = variable
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{variable}: {part!r} is not a section of the file")
    table[path[-1]] = _value(value)


def _value(text: str) -> Any:
    """A list is written as JSON; everything else is text, which the model reads as its type."""
    if text.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(text)  # [::1]:8080 is none and stays text
    return text


def _reason(model: type[BaseModel], error: Any) -> str:
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        known = _keys_at(model, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        if close:
            return f"unknown key; did you mean {close[0]!r}?"
        return f"unknown key; known here: {', '.join(sorted(known)) or 'none'}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return f"{message[0].lower()}{message[1:]}, not {_shown(error['input'])}"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(part if part and part.isprintable() else repr(part) for part in path)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _keys_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(str(part))
        current = field.annotation if field is not None else None
    return list(getattr(current, "model_fields", {}))
