"""The packages under test, and broken ones made of them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.systemd.machine import command


class Packages:
    """Debian packages of agent and console, each built once. *root*: our sources."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "build/systemd"
        self._built: dict[tuple[str, str], Path] = {}

    async def build(self, kind: str, version: str = "") -> Path:
        """The package of `agent` or `console`; *version*, if given, is what it calls itself."""
        if (kind, version) not in self._built:
            folder = self._folder / f"{kind}-{version or 'as-is'}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            words = [sys.executable, str(self._root / "packaging/build.py"), "deb"]
            words += ["--only", kind, "--level", "0", "--into", str(folder)]
            words += ["--version", version] if version else []
            await command(*words, within=600)
            (self._built[kind, version],) = folder.glob(f"deb/nexus-core-{kind}_*.deb")
        return self._built[kind, version]

    async def broken(self, version: str, file: str, text: str) -> Path:
        """The agent's with *text* put at the end of a module, such as `nexus_agent/app.py`."""
        package = await self.build("agent", version)
        tree = self._folder / f"{version}-broken"
        shutil.rmtree(tree, ignore_errors=True)
        await command("dpkg-deb", "--raw-extract", str(package), str(tree))
        (module,) = tree.glob(f"usr/lib/nexus-agent/versions/*/lib/python3*/site-packages/{file}")
        with module.open("a", encoding="utf-8") as source:
            source.write(text)
        # Its bytecode is not checked against the source, so that nothing is written where it runs.
        for compiled in module.parent.glob(f"__pycache__/{module.stem}.*"):
            compiled.unlink()
        made = self._folder / f"{version}-broken.deb"
        await command("dpkg-deb", "--root-owner-group", "-z0", "--build", str(tree), str(made))
        return made
