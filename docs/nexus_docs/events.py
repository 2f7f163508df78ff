"""The kinds of events of docs/reference/events.md, from the models that every event is held to."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nexus_agent.protocol.catalogue import CATALOGUE, EventData, OneOf, Part, Unit
from nexus_docs.configuration import docstring

_WORDS: Final[dict[Any, str]] = {
    bool: "yes or no",
    int: "whole number",
    float: "number",
    str: "text",
    Any: "any JSON",
}
_HEAD: Final = "| key | what it is | meaning |\n|---|---|---|\n"
_OBVIOUS: Final = {"vehicle_ref", "vin"}


def sections() -> str:
    """One section a type of event, then one for each kind of object within them."""
    parts: dict[str, type[Part]] = {}
    for kind in CATALOGUE.values():
        for part in _parts(kind):
            parts.setdefault(part.__name__, part)
    told = "\n".join(map(_section, CATALOGUE.values()))
    objects = "".join(
        f"\n### {name}\n\n{_about(part)}\n\n{_table(part)}" for name, part in parts.items()
    )
    return f"{told}\n## Objects within\n{objects}"


def _section(kind: type[EventData]) -> str:
    streams = " or ".join(f"`{stream}`" for stream in kind.streams)
    facts = f"*Stream* {streams} · *rate* {kind.rate} · *privacy* {kind.privacy}"
    return f"### `{kind.type}`\n\n{_about(kind)}\n\n{facts}\n\n{_table(kind)}"


def _about(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _table(model: type[BaseModel]) -> str:
    rows = [_row(model, name, field) for name, field in model.model_fields.items()]
    if model.model_config.get("extra") == "allow":
        rows.append("| *each key* | [Measured](#measured) | a figure by its name |\n")
    return _HEAD + "".join(rows)


def _row(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    key = f"`{field.alias or name}`" + ("" if field.is_required() else "?")
    unit = "".join(f", {each.text}" for each in _metadata(field) if isinstance(each, Unit))
    cells = (key, _kind(_annotation(model, name)) + unit, docstring(model, name) or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _annotation(model: type[BaseModel], name: str) -> Any:
    """With all of its metadata, of which pydantic takes some away."""
    field = model.model_fields[name]
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _metadata(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    yield from _annotated(field.annotation)


def _annotated(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    if _is_union(annotation) or get_origin(annotation) is Annotated:
        for each in get_args(annotation)[: None if _is_union(annotation) else 1]:
            yield from _annotated(each)


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words = [each for each in annotation.__metadata__ if isinstance(each, OneOf)]
        return ", ".join(f"`{word}`" for word in words[0].words) if words else _kind(arguments[0])
    if _is_union(annotation):
        kinds = dict.fromkeys(_kind(each) for each in arguments if each is not NoneType)
        return " or ".join([*kinds, *(["null"] if NoneType in arguments else [])])
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"text → {_kind(arguments[1])}"
    return _WORDS.get(annotation) or _kind_of_class(annotation)


def _kind_of_class(kind: type[Part | enum.StrEnum]) -> str:
    if issubclass(kind, Part):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return ", ".join(f"`{word}`" for word in kind)


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, UnionType) or get_origin(annotation) is Union


def _parts(model: type[BaseModel]) -> Iterator[type[Part]]:
    """The kinds of objects that *model* holds, at any depth, outer ones first."""
    kinds = [field.annotation for field in model.model_fields.values()]
    if model.model_config.get("extra") == "allow":
        kinds += get_args(get_type_hints(model)["__pydantic_extra__"])
    for annotation in kinds:
        for part in _within(annotation):
            yield part
            yield from _parts(part)


def _within(annotation: Any) -> Iterator[type[Part]]:
    if inspect.isclass(annotation) and issubclass(annotation, Part):
        yield annotation
    for each in get_args(annotation):
        yield from _within(each)


def schemas() -> dict[str, Any]:
    """Type → JSON Schema of its data, without the words for people."""
    return {name: _plain(kind.model_json_schema()) for name, kind in sorted(CATALOGUE.items())}


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _plain(value)
            for key, value in schema.items()
            if key not in {"title", "description"} or not isinstance(value, str)
        }
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def breaks(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What the catalogue *now* does that a console that knows *before* could not bear.

    Both as `schemas` has them. Types and keys that may be missing can be added, and nothing else.
    """
    found: list[str] = []
    for name, old in before.items():
        if name not in now:
            found.append(f"{name}: gone")
            continue
        found += _breaks(name, old, now[name])
        for part, old_part in old.get("$defs", {}).items():
            found += _breaks(f"{name}: {part}", old_part, now[name].get("$defs", {}).get(part, {}))
    return found


def _breaks(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    keys, new_keys = old.get("properties", {}), new.get("properties", {})
    for key in keys:
        if key not in new_keys:
            yield f"{where}: {key} is gone"
        elif keys[key] != new_keys[key]:
            yield f"{where}: {key} has another form"
    for key in sorted({*old.get("required", ())} ^ {*new.get("required", ())}):
        yield f"{where}: {key} is obligatory in one of the two only"
    if not keys and old != new:
        yield f"{where}: has another form"
