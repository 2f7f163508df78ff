"""The console's API as its OpenAPI document, and that document as a page of tables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from nexus_console.api import create_api
from nexus_console.api.access import Services

_HEAD: Final = """\
# REST reference

Every path of the console as its [OpenAPI document](openapi.json) has it. Both are written by `make
reference`; the [console API](console-api.md) says in words what it all means.
"""
_METHODS: Final = ("get", "post", "put", "patch", "delete")

Document = dict[str, Any]


def document() -> Document:
    """The OpenAPI document. The API answers nothing here, so it needs no services."""
    return create_api(cast("Services", None)).openapi()


def as_json(openapi: Document) -> str:
    return json.dumps(openapi, indent=2, ensure_ascii=False) + "\n"


def as_page(openapi: Document) -> str:
    operations = [
        _operation(f"{method.upper()} {path}", item[method])
        for path, item in openapi["paths"].items()
        for method in _METHODS
        if method in item
    ]
    schemas = [
        _schema(name, schema) for name, schema in sorted(openapi["components"]["schemas"].items())
    ]
    return "\n".join([_HEAD, "## Requests\n", *operations, "## Schemas\n", *schemas])


def _operation(title: str, operation: Document) -> str:
    parts = [f"### `{title}`\n\n{operation.get('description', operation['summary'])}\n"]
    if parameters := operation.get("parameters"):
        rows = [_parameter(parameter) for parameter in parameters]
        parts.append(_table(("parameter", "in", "type", "default"), rows))
    if body := operation.get("requestBody"):
        parts.append(f"Body: {_content(body)}\n")
    answers = [
        f"- {'otherwise' if status == 'default' else status}: {_content(answer)}"
        for status, answer in operation["responses"].items()
    ]
    parts.append("Answers:\n\n" + "\n".join(answers) + "\n")
    return "\n".join(parts)


def _parameter(parameter: Document) -> tuple[str, ...]:
    schema = parameter["schema"]
    default = "must be given" if parameter["required"] else _literal(schema.get("default"))
    return f"`{parameter['name']}`", parameter["in"], _type(schema), default


def _content(message: Document) -> str:
    schemas = [
        f"{_type(part['schema'])}" + ("" if kind == "application/json" else f" as `{kind}`")
        for kind, part in message.get("content", {}).items()
        if part.get("schema")
    ]
    return ", ".join(schemas) or message.get("description", "nothing")


def _schema(name: str, schema: Document) -> str:
    parts = [f"### {name}\n"]
    if "description" in schema:
        parts.append(" ".join(schema["description"].split()) + "\n")
    if "enum" in schema:
        parts.append(f"One of {', '.join(_literal(value) for value in schema['enum'])}.\n")
    needed = schema.get("required", ())
    rows = [
        (
            f"`{key}`",
            _type(kind),
            "always" if key in needed else f"if not given, {_literal(kind.get('default'))}",
        )
        for key, kind in schema.get("properties", {}).items()
    ]
    if rows:
        parts.append(_table(("key", "type", "there"), rows))
    return "\n".join(parts)


def _type(schema: Document) -> str:
    """A schema in a few words, with links to what it refers to."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(_literal(value) for value in schema["enum"])
    if "const" in schema:
        return _literal(schema["const"])
    kind: str = schema.get("type", "any JSON value")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    return kind + "".join(f", {words}" for words in _limits(schema))


def _limits(schema: Document) -> Iterator[str]:
    words = {
        "minimum": "at least {:,}",
        "maximum": "at most {:,}",
        "minLength": "at least {:,} characters",
        "maxLength": "at most {:,} characters",
    }
    for key, text in words.items():
        if key in schema:
            yield text.format(schema[key])


def _literal(value: Any) -> str:
    return "none" if value is None else f"`{json.dumps(value)}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|")
