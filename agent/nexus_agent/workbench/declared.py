"""Checks of what a plugin says of itself: the class, sample.toml and README.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from nexus_agent.plugin import NAME_PATTERN, EventData, Plugin, commands_of
from nexus_agent.protocol import ProtocolError, check_event_type
from nexus_agent.protocol.catalogue import names
from nexus_agent.workbench.findings import Finding, failed, passed
from nexus_agent.workbench.subject import README, Subject

HEADINGS: Final = (
    "What it does",
    "Settings",
    "Events",
    "Commands",
    "What it needs",
    "When it does not work",
)
"""The sections of every plugin's README, in this order; more may follow."""


def texts(plugin: type[Plugin[Any]]) -> Finding:
    """Whether people are told what this is."""
    empty = [
        name for name in ("version", "description", "author") if not getattr(plugin, name).strip()
    ]
    silent = [
        spec.attribute
        for spec in commands_of(plugin).values()
        if spec.summary == spec.attribute  # what `command` takes where there is no docstring
    ]
    if empty:
        return failed("texts", f"{', '.join(empty)}: empty", "say it in a few words")
    if silent:
        advice = "its first line is the summary that the operator reads"
        return failed("texts", f"command {', '.join(silent)}: no docstring", advice)
    return passed("texts", f"{plugin.name} {plugin.version}: {plugin.description}")


def declarations(plugin: type[Plugin[Any]]) -> Finding:
    """Whether what the class declares is well-formed and names what there is."""
    wrong = list(_wrong_declarations(plugin))
    if wrong:
        text, advice = wrong[0]
        return failed("declarations", text, advice)
    return passed(
        "declarations",
        f"emits {_listed(names(plugin.emits))}; live {_listed(sorted(plugin.live))}; "
        f"devices {_listed(plugin.devices)}",
    )


def _wrong_declarations(plugin: type[Plugin[Any]]) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) of each declaration that is."""
    for name in ("emits", "devices", "requires"):
        value = getattr(plugin, name)
        if not isinstance(value, tuple) or not all(map(_is_name, value)):
            yield f"{name} is {value!r}", f'make it a tuple of texts, such as {name} = ("one",)'
            return
    yield from _wrong_names(plugin)
    settings = plugin.settings_model
    places = (("live", [*settings.model_fields]), ("devices", _keys(settings.model_json_schema())))
    for attribute, known in places:
        for name in getattr(plugin, attribute):
            if name not in known:
                yield f"{attribute}: there is no setting {name!r}", f"known: {_listed(known)}"
    if plugin.deadline_s is not None and not plugin.deadline_s > 0:
        yield f"deadline_s is {plugin.deadline_s!r}", "give seconds, or None"


def _keys(schema: Mapping[str, Any]) -> list[str]:
    """The names of all settings, and of those in tables of settings."""
    models = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for model in models for name in model.get("properties", {})})


def _is_name(item: object) -> bool:
    """Whether it can stand in a list of names; an event's type may have its model there."""
    return isinstance(item, str) or (isinstance(item, type) and issubclass(item, EventData))


def _wrong_names(plugin: type[Plugin[Any]]) -> Iterator[tuple[str, str]]:
    for event_type in names(plugin.emits):
        try:
            check_event_type(event_type)
        except ProtocolError as error:
            yield f"emits: {error}", "rename it"
    for name in plugin.requires:
        if not re.fullmatch(NAME_PATTERN, name) or name == plugin.name:
            yield f"requires: {name!r} is no other plugin's name", "name plugins, as in agent.toml"


def readme(subject: Subject) -> Finding:
    """Whether README.md has every heading, and names every setting, event type and command."""
    text = subject.text(README)
    if text is None:
        return failed("readme", f"there is no {README}", f"write one: {', '.join(HEADINGS)}")
    parts = sections(text)
    found = [heading for heading in parts if heading in HEADINGS]
    if found != list(HEADINGS):
        missing = [heading for heading in HEADINGS if heading not in found]
        what = f"no `## {missing[0]}`" if missing else "its headings are in another order"
        return failed("readme", what, f"have these, in this order: {', '.join(HEADINGS)}")
    plugin = subject.plugin
    expected = {
        "Settings": plugin.settings_model.model_fields,
        "Events": names(plugin.emits),
        "Commands": [f"{plugin.name}.{name}" for name in commands_of(plugin)],
    }
    for heading, wanted in expected.items():
        for name in wanted:
            if f"`{name}`" not in parts[heading]:
                what = f"{heading} does not name `{name}`"
                return failed("readme", what, "explain it there, in `backquotes`")
    return passed("readme", "has every heading, and names all settings, events and commands")


def sections(text: str) -> dict[str, str]:
    """The text below each second-level heading of a Markdown *text*."""
    _, *parts = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
