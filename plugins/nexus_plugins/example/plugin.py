"""Tells how many files lie in a folder, whenever that changes."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import Field

from nexus_agent.plugin import Plugin, Quality, Settings


class ExampleSettings(Settings):
    """What `[plugins.example]` takes."""

    folder: Path
    """The folder to look into; folders in it are not."""
    pattern: str = Field(default="*", min_length=1)
    """Shell pattern of the names that count, such as `*.pdf`."""
    interval_s: float = Field(default=10.0, ge=0.1, le=86_400)
    """Seconds between two looks."""


class ExamplePlugin(Plugin[ExampleSettings]):
    """README.md explains it line by line."""

    name = "example"
    version = "1.0"
    description = "How many files lie in a folder: the plugin to learn from."
    author = "Nexus Core"
    emits = ("example.files",)
    devices = ("folder",)
    settings_model = ExampleSettings
    live = frozenset({"pattern", "interval_s"})

    async def run(self) -> None:
        told = await self.context.state.get("told")
        while True:
            found = await self._look()
            if found != told:
                await self.context.emit("example.files", found)
                await self.context.state.set("told", found)
                told = found
            self.context.report(f"{_in_words(found)} in {found['folder']}")
            await self.context.sleep(self.context.settings.interval_s)

    async def _look(self) -> dict[str, Any]:
        settings = self.context.settings
        value, quality = await self.context.run_blocking(count, settings.folder, settings.pattern)
        return {
            "folder": str(settings.folder),
            "pattern": settings.pattern,
            "value": value,
            "unit": "1",
            "quality": quality,
        }


def count(folder: Path, pattern: str) -> tuple[int | None, Quality]:
    """How many files of *folder* match *pattern*, or why that cannot be said. Blocks."""
    try:
        matching = [entry for entry in folder.iterdir() if fnmatch(entry.name, pattern)]
        return sum(entry.is_file() for entry in matching), Quality.OK
    except PermissionError:
        return None, Quality.REFUSED
    except OSError:
        return None, Quality.ABSENT


def _in_words(found: dict[str, Any]) -> str:
    if found["quality"] == Quality.OK:
        return f"{found['value']} files"
    return f"nothing to be counted ({found['quality']})"
