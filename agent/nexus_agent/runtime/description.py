"""What a plugin says of itself, in whichever process its class is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from nexus_agent.plugin import CommandSpec, Plugin, Safety, commands_of
from nexus_agent.protocol.catalogue import names


class AnyArgs(BaseModel):
    """Arguments of a command in another process: they are checked there."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class Description:
    """A plugin's declarations (see `nexus_agent.plugin.Plugin`).

    settings and arguments: JSON Schemas, of the latter one a command by its local name.
    """

    name: str
    version: str
    description: str
    author: str
    requires: tuple[str, ...] = ()
    emits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    live: frozenset[str] = frozenset()
    deadline_s: float | None = None
    commands: Mapping[str, CommandSpec] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON has it; `description_of` reads it."""
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "author": self.author,
            "requires": list(self.requires),
            "emits": list(self.emits),
            "devices": list(self.devices),
            "live": sorted(self.live),
            "deadline_s": self.deadline_s,
            "commands": [
                {
                    "name": spec.name,
                    "safety": str(spec.safety),
                    "timeout_s": spec.timeout_s,
                    "summary": spec.summary,
                    "scans": spec.scans,
                    "arguments": self.arguments[name],
                }
                for name, spec in self.commands.items()
            ],
            "settings": self.settings,
        }


def describe(plugin: type[Plugin[Any]]) -> Description:
    """What the class *plugin* says of itself."""
    commands = commands_of(plugin)
    return Description(
        name=plugin.name,
        version=plugin.version,
        description=plugin.description,
        author=plugin.author,
        requires=tuple(plugin.requires),
        emits=names(plugin.emits),
        devices=tuple(plugin.devices),
        live=frozenset(plugin.live),
        deadline_s=plugin.deadline_s,
        commands=commands,
        settings=plugin.settings_model.model_json_schema(),
        arguments={name: spec.args.model_json_schema() for name, spec in commands.items()},
    )


def description_of(document: Mapping[str, Any]) -> Description:
    """What `Description.document` was made of, with `AnyArgs` for every command's arguments."""
    commands = {
        item["name"]: CommandSpec(
            name=item["name"],
            args=AnyArgs,
            safety=Safety(item["safety"]),
            timeout_s=float(item["timeout_s"]),
            summary=str(item["summary"]),
            attribute=item["name"],
            scans=item["scans"],
        )
        for item in document["commands"]
    }
    return Description(
        name=document["name"],
        version=document["version"],
        description=document["description"],
        author=document["author"],
        requires=tuple(document["requires"]),
        emits=tuple(document["emits"]),
        devices=tuple(document["devices"]),
        live=frozenset(document["live"]),
        deadline_s=document["deadline_s"],
        commands=commands,
        settings=document["settings"],
        arguments={item["name"]: item["arguments"] for item in document["commands"]},
    )
