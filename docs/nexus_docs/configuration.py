"""Tables of settings from the models that read them: key, variable, type, default, meaning."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from nexus_agent import discovery
from nexus_agent.config import AgentConfig
from nexus_agent.sections import OwnKeys
from nexus_agent.settings import PREFIX, SEPARATOR
from nexus_console.config import ConsoleSettings

PLUGINS: Final = ("can_signals", "example", "host", "j1939", "obd", "uds")
_HEAD: Final = "| key, variable | meaning, type, default |\n|---|---|\n"
_README_HEAD: Final = "| key | meaning, type, default |\n|---|---|\n"
_WORDS: Final = {
    str: "text",
    SecretStr: "text, a secret",
    Path: "path",
    int: "whole number",
    float: "number",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key and its variable."""

    key: str
    variable: str
    kind: str
    default: str
    meaning: str


def tables() -> dict[str, str]:
    """A Markdown table for each mark of the page; two columns, for four leave no room to read."""
    models: dict[str, tuple[type[BaseModel], str]] = {
        "agent": (AgentConfig, ""),
        "console": (ConsoleSettings, ""),
    }
    models["plugins"] = (OwnKeys, "plugins.NAME.")
    for name in PLUGINS:
        models[name] = (_model_of(name), f"plugins.{name}.")
    return {mark: _table(settings_of(model, at)) for mark, (model, at) in models.items()}


def plugin_table(name: str) -> str:
    """A Markdown table of one plugin's settings, for its own README."""
    return _README_HEAD + "".join(
        _row(f"`{setting.key}`", setting) for setting in settings_of(_model_of(name))
    )


def _model_of(name: str) -> type[BaseModel]:
    return discovery.load(discovery.find(name)).settings_model


def settings_of(model: type[BaseModel], at: str = "") -> Iterator[Setting]:
    """Every key of *model* and of the sections in it. LookupError for one that nobody explained."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is not None:
            yield from settings_of(section, f"{at}{name}.")
        elif name != "plugins":
            yield _setting(model, name, field, at)


def _setting(model: type[BaseModel], name: str, field: FieldInfo, at: str) -> Setting:
    meaning = docstring(model, name)
    if meaning is None:
        raise LookupError(f"{model.__module__}.{model.__name__}.{name} has no docstring below it")
    key = f"{at}{name}"
    variable = PREFIX + key.upper().replace(".", SEPARATOR)
    return Setting(key, variable, _kind(field.annotation, field), _default(field), meaning)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None


def docstring(model: type[BaseModel], name: str) -> str | None:
    """The string below the attribute, in the model or in the one that it inherits it from."""
    owner = next(base for base in model.__mro__ if name in inspect.get_annotations(base))
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    for line, following in pairwise(ast.iter_child_nodes(tree)):
        match line, following:
            case (
                ast.AnnAssign(target=ast.Name(id=target)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if target == name:
                return " ".join(text.split())
    return None


def _kind(annotation: Any, field: FieldInfo) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in {tuple, dict}:
        return "table" if origin is dict else f"list of: {_kind(arguments[0], field)}"
    if origin in {Annotated, Union, UnionType}:
        inner = arguments[:1] if origin is Annotated else arguments
        kinds = [argument for argument in inner if argument is not NoneType]
        return " or ".join(_kind(kind, field) for kind in kinds)
    if annotation is bool:
        return "`true`, `false`"
    if issubclass(annotation, enum.StrEnum):
        return ", ".join(f"`{choice}`" for choice in annotation)
    return "table" if issubclass(annotation, BaseModel) else _WORDS[annotation] + _range(field)


def _range(field: FieldInfo) -> str:
    words = []
    for limit in field.metadata:
        match limit:
            case Ge(ge=bound):
                words.append(f"at least {bound:,}")
            case Gt(gt=bound):
                words.append(f"more than {bound:,}")
            case Le(le=bound):
                words.append(f"at most {bound:,}")
    return "".join(f", {word}" for word in words)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        return "default: empty" if field.default_factory is dict else "default: see above"
    match field.default:
        case None:
            return "default: none"
        case str() | Path() as text:
            return f"default: `{text}`"
        case float() as number:
            return f"default: `{number:g}`"
        case value:
            return f"default: `{json.dumps(value)}`"


def _table(settings: Iterator[Setting]) -> str:
    return _HEAD + "".join(
        _row(f"`{setting.key}`<br>`{setting.variable}`", setting) for setting in settings
    )


def _row(name: str, setting: Setting) -> str:
    cells = (name, f"{setting.meaning}<br>*{setting.kind}; {setting.default}*")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
