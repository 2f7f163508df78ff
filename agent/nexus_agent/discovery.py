"""Finding plugins: by entry point, or in a bundle folder. What nobody asks for is not imported.

A bundle is a folder with a manifest, `plugin.toml`, and the plugin's code beside it:

    api = 1
    name = "thermometer"
    code = "thermometer:Thermometer"
"""

from __future__ import annotations

import difflib
import importlib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus_agent.plugin import NAME_PATTERN, Plugin

GROUP: Final = "nexus.plugins"
MANIFEST: Final = "plugin.toml"
MANIFEST_BYTES: Final = 64 * 1024
API: Final = 1
"""The version of the contract in `nexus_agent.plugin`."""
RESERVED: Final = "agent"
"""What the agent calls itself in events and state."""
OWN: Final = "nexus-core-agent"
"""The distribution whose plugins are the product's own."""


class DiscoveryError(Exception):
    """A plugin cannot be found or loaded; the message is one line and names it."""


class Manifest(BaseModel):
    """What `plugin.toml` says. code: `module:Class`, with the module beside the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api: Literal[1]
    name: str = Field(pattern=NAME_PATTERN)
    code: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


@dataclass(frozen=True, slots=True)
class Code:
    """Where a plugin's class is. folder: its bundle, which imports look into first; else None."""

    name: str
    module: str
    attribute: str
    folder: Path | None = None
    own: bool = False
    """Whether it comes with the product."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        folder = None if self.folder is None else str(self.folder)
        return {
            "name": self.name,
            "module": self.module,
            "attribute": self.attribute,
            "folder": folder,
        }


def code_of(document: Mapping[str, Any]) -> Code:
    """The `Code` that `document` was made of."""
    folder = document["folder"]
    return Code(
        document["name"],
        document["module"],
        document["attribute"],
        None if folder is None else Path(folder),
    )


def find(name: str, bundles: Path | None = None) -> Code:
    """Where the plugin *name* is; *bundles* holds bundle folders. Raises DiscoveryError.

    An installed plugin wins over a bundle of its name: a folder cannot take the place of one.
    """
    if name == RESERVED:
        raise DiscoveryError(f"no plugin may be called {RESERVED!r}")
    installed = available()
    if name in installed:
        return installed[name]
    if bundles is not None and (bundles / name / MANIFEST).exists():
        return bundle(bundles / name)
    known = sorted({*installed, *_bundle_names(bundles)})
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"installed: {', '.join(known)}"
    raise DiscoveryError(f"no plugin {name!r} is installed; {hint}")


def available() -> dict[str, Code]:
    """Every installed plugin by name."""
    found: dict[str, Code] = {}
    for entry in entry_points(group=GROUP):
        own = entry.dist is not None and entry.dist.name == OWN
        found[entry.name] = Code(entry.name, entry.module, entry.attr, None, own)
    return found


def bundle(folder: Path) -> Code:
    """The plugin whose bundle *folder* is. Raises DiscoveryError."""
    file = folder / MANIFEST
    try:
        if file.stat().st_size > MANIFEST_BYTES:
            raise DiscoveryError(f"{file}: has more than {MANIFEST_BYTES} bytes")
        manifest = Manifest.model_validate(tomllib.loads(file.read_text("utf-8")))
    except OSError as error:
        raise DiscoveryError(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DiscoveryError(f"{file}: is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DiscoveryError(f"{file}: {where}: {first['msg']}") from None
    if manifest.name != folder.name:
        raise DiscoveryError(
            f"{file}: the plugin is called {manifest.name!r}, its folder {folder.name!r}: "
            "give both the same name"
        )
    module, attribute = manifest.code.split(":")
    return Code(manifest.name, module, attribute, folder)


def _bundle_names(bundles: Path | None) -> list[str]:
    if bundles is None:
        return []
    return [file.parent.name for file in bundles.glob(f"*/{MANIFEST}")]


def load(code: Code) -> type[Plugin[Any]]:
    """Import the plugin's class. Raises DiscoveryError, whatever the import raises."""
    if code.folder is not None and str(code.folder) not in sys.path:
        sys.path.insert(0, str(code.folder))
    try:
        plugin = getattr(importlib.import_module(code.module), code.attribute)
    except (Exception, SystemExit) as error:
        # A module may raise anything while it is imported, and it is somebody else's.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DiscoveryError(f"plugin {code.name!r} does not load: {reason}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        where = f"{code.module}:{code.attribute}"
        raise DiscoveryError(f"plugin {code.name!r}: {where} is not a Plugin class")
    if (own := getattr(plugin, "name", None)) != code.name:
        raise DiscoveryError(f"plugin {code.name!r} calls itself {own!r}")
    for attribute in ("version", "description", "author"):
        if not isinstance(getattr(plugin, attribute, None), str):
            raise DiscoveryError(f"plugin {code.name!r} does not say its {attribute}")
    return plugin
