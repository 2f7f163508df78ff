"""The offline bundle: wheels with their hashes, what lies beside them, and an installer."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
from pathlib import Path

from files import AGENT, lay_out
from tree import MINOR, ROOT, architecture, epoch, fetch_wheels, settle


def build_bundle(version: str, wheel: Path, build: Path) -> Path:
    """Build the agent's bundle as *version* around *wheel*, for this machine's architecture."""
    name = f"{AGENT.name}-{version}-{architecture()}"
    tree = build / name
    shutil.rmtree(tree, ignore_errors=True)
    lay_out(AGENT, tree / "files")
    lock = ROOT / "requirements" / AGENT.lock
    fetched = fetch_wheels(lock)
    (tree / "wheels").mkdir()
    for path in [*fetched.glob("*.whl"), wheel]:
        shutil.copy(path, tree / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    own = f"{AGENT.name}=={version} \\\n    --hash=sha256:{digest}\n"
    (tree / "requirements.txt").write_text(lock.read_text("utf-8") + own, "utf-8")
    installer = (ROOT / "packaging" / "install.sh").read_text("utf-8")
    (tree / "install.sh").write_text(
        installer.replace("@VERSION@", version).replace("@MINOR@", MINOR), "utf-8"
    )
    (tree / "install.sh").chmod(0o755)
    settle(tree)
    return _pack(tree, build / f"{name}.tar.gz")


def _pack(tree: Path, file: Path) -> Path:
    """A tar.gz of *tree* that is the same for the same content."""
    with (
        file.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=epoch()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in [tree, *sorted(tree.rglob("*"))]:
            archive.add(path, str(path.relative_to(tree.parent)), recursive=False, filter=_roots)
    return file


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
