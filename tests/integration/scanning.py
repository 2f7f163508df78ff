"""Scans with one plugin as the agent does it: the plugin finds, the agent tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from nexus_agent.manage.scan import Scans
from nexus_agent.plugin import CommandSpec, Plugin, Progress, Stream, commands_of
from nexus_agent.testing import RecordingContext


class Alone:
    """The commands of one plugin that runs."""

    def __init__(self, plugin: Plugin[Any]) -> None:
        self._plugin = plugin
        self._specs = commands_of(type(plugin))

    def find(self, name: str) -> CommandSpec | None:
        return self._specs.get(name.partition(".")[2])

    def scanners(self) -> dict[str, set[str]]:
        return {
            f"{self._plugin.name}.{name}": set(spec.args.model_fields)
            for name, spec in self._specs.items()
            if spec.scans
        }

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        return await getattr(self._plugin, name.partition(".")[2])(args, progress)


async def scan(plugin: Plugin[Any], **given: Any) -> dict[str, Any]:
    """What the operator of `PLUGIN.scan` is told; its events are in the plugin's context."""
    context = plugin.context
    assert isinstance(context, RecordingContext)

    async def emit(events: Sequence[tuple[str, Any]], stream: Stream) -> None:
        await context.emit_many(events, stream=stream)

    scans = Scans(Alone(plugin), emit, context.state)
    spec = scans.find(f"{plugin.name}.scan")
    assert spec is not None
    arguments = spec.args.model_validate(given)
    result: dict[str, Any] = await scans.invoke(f"{plugin.name}.scan", arguments, lambda _: None)
    return result
