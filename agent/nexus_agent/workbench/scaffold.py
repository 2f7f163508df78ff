"""`nexus plugin new`: a bundle that runs and passes at once."""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Final

from nexus_agent import discovery
from nexus_agent.plugin import NAME_PATTERN

FILES: Final[Mapping[str, str]] = {
    "plugin.toml": "plugin.toml.tmpl",
    "$name.py": "code.py.tmpl",
    "sample.toml": "sample.toml.tmpl",
    "README.md": "README.md.tmpl",
    "test_$name.py": "test.py.tmpl",
    "pytest.ini": "pytest.ini.tmpl",
}
"""Template of each file of a bundle."""


class ScaffoldError(Exception):
    """The bundle cannot be made, and nothing was written; the message is one line."""


def make(name: str, parent: Path) -> Path:
    """Make the bundle folder *name* in *parent*, whole or not at all. Raises ScaffoldError."""
    _check(name)
    folder = parent / name
    if folder.exists():
        raise ScaffoldError(f"{folder} is there already: choose another name or another --folder")
    values = {"name": name, "class_name": "".join(map(str.capitalize, name.split("_")))}
    source = files("nexus_agent.workbench") / "template"
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as made:
            whole = Path(made) / name
            whole.mkdir()
            for file, template in FILES.items():
                text = Template((source / template).read_text("utf-8")).substitute(values)
                (whole / Template(file).substitute(values)).write_text(text, "utf-8")
            shutil.move(whole, folder)
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be made: {error.strerror}") from None
    return folder


def _check(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ScaffoldError(
            f"{name!r} cannot be a plugin's name: use 1 to 32 lower-case letters, digits and _, "
            "a letter first"
        )
    if name in discovery.available():
        raise ScaffoldError(f"a plugin {name!r} is installed already: choose another name")
    # Its module is called like it: one of that name would be imported in its stead.
    spec = find_spec(name)
    if keyword.iskeyword(name) or (spec is not None and spec.origin is not None):
        raise ScaffoldError(f"{name!r} means something else in Python: choose another name")
