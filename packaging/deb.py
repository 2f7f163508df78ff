"""A Debian package of a product: deb-control(5), deb-conffiles(5), dpkg-deb(1)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

from files import AGENT, CONSOLE, Product, lay_out
from tree import MINOR, ROOT, architecture, build_environment, epoch, fetch_wheels, settle

PARTS: Final = ROOT / "packaging"


def build_deb(product: Product, version: str, wheel: Path, build: Path, *, level: int) -> Path:
    """Build *product* as *version* around *wheel*; *level* is of xz, 0 to 9."""
    tree = build / product.name
    shutil.rmtree(tree, ignore_errors=True)
    lock = ROOT / "requirements" / product.lock
    wheels = fetch_wheels(lock)
    lay_out(product, tree)
    home = f"{product.home}/versions/{version}"
    build_environment(tree / home, lock, wheels, wheel, f"/{home}")
    shutil.rmtree(next((tree / home).glob(f"lib/*/site-packages/{product.leaves_out}")))
    if product is CONSOLE:
        (tree / product.home / "current").symlink_to(f"versions/{version}")
    settle(tree)
    _write_control(product, version, tree)
    settle(tree / "DEBIAN")
    file = build / f"{product.name}_{version}_{architecture()}.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", f"-z{level}", "--build"]
    subprocess.run(
        [*command, str(tree), str(file)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())},
    )
    return file


def maintainer_script(script: Path, version: str) -> str:
    """The script with layout.sh in it: it may run when the package's files are not there."""
    layout = (PARTS / "layout.sh").read_text("utf-8")
    text = script.read_text("utf-8").replace("@VERSION@", version)
    return text.replace("# shellcheck source=packaging/layout.sh\n. ./layout.sh\n", layout)


def _write_control(product: Product, version: str, tree: Path) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    folder = tree / "DEBIAN"
    folder.mkdir()
    sums = [f"{_md5(path)}  {path.relative_to(tree)}\n" for path in files]
    (folder / "md5sums").write_text("".join(sums), "utf-8")
    settings = [name for name in product.files if name.startswith("etc/")]
    (folder / "conffiles").write_text("".join(f"/{name}\n" for name in settings), "utf-8")
    size = sum(path.stat().st_size // 1024 + 1 for path in files)
    following = f"{sys.version_info.major}.{sys.version_info.minor + 1}"
    (folder / "control").write_text(
        f"Package: {product.name}\n"
        f"Version: {version}\n"
        f"Architecture: {architecture()}\n"
        "Maintainer: Nexus Core <nexus@localhost>\n"
        f"Installed-Size: {size}\n"
        f"Depends: python3 (>= {MINOR}), python3 (<< {following}), systemd\n"
        "Recommends: ca-certificates\n"
        "Section: net\n"
        "Priority: optional\n"
        f"Description: Nexus Core: {product.summary}\n"
        f"{textwrap.indent(product.about, ' ')}\n",
        "utf-8",
    )
    kind = "agent" if product is AGENT else "console"
    for script in sorted((PARTS / kind).iterdir()):
        path = folder / script.name
        path.write_text(maintainer_script(script, version), "utf-8")
        path.chmod(0o755)


def _md5(path: Path) -> str:
    """What deb-md5sums(5) asks for; it finds a bad disk and proves nothing."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
