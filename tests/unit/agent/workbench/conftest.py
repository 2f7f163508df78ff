"""Bundles to try the workbench on: what `nexus plugin new` makes, with other code in it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus_agent.workbench import scaffold

HEAD = """
import asyncio, ctypes, os, socket, subprocess, sys, threading, time
from pathlib import Path
from pydantic import Field, field_validator
from nexus_agent.plugin import FatalError, Plugin, RetryError, Settings

class ProbeSettings(Settings):
    path: Path
    interval_s: float = 10.0

class Probe(Plugin[ProbeSettings]):
    name = "probe"
    version = "0.1"
    description = "Misbehaves."
    author = "A test"
    emits = ("probe.reading",)
    devices = ("path",)
    settings_model = ProbeSettings
"""

Bundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Makes the bundle `probe` whose `run` has this body; *instead* replaces texts of its code."""

    def make(body: str, **instead: str) -> Path:
        folder = scaffold.make("probe", tmp_path)
        code = (
            HEAD + "\n    async def run(self):\n" + textwrap.indent(textwrap.dedent(body), " " * 8)
        )
        for old, new in instead.items():
            assert old in code
            code = code.replace(old, new)
        (folder / "probe.py").write_text(code)
        manifest = folder / "plugin.toml"
        manifest.write_text(manifest.read_text().replace("ProbePlugin", "Probe"))
        return folder

    return make
