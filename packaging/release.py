"""All that a release has: wheel, Debian packages, bundle, bills of materials, checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from bundle import build_bundle
from deb import build_deb
from files import PRODUCTS, Product
from tree import ALONE, ROOT, architecture, build_wheel, run


def build_release(version: str, build: Path, *, level: int) -> Path:
    """Build everything as *version* and collect it in *build*/release, the checksums last."""
    release = build / "release"
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir(parents=True)
    (build / "deb").mkdir(exist_ok=True)
    (build / "bundle").mkdir(exist_ok=True)
    wheel = build_wheel(version, build / "deb")
    made = [wheel, build_bundle(version, wheel, build / "bundle")]
    for product in PRODUCTS.values():
        made.append(build_deb(product, version, wheel, build / "deb", level=level))
        environment = build / "deb" / product.name / product.home / "versions" / version
        bill = release / f"{product.name}_{version}_{architecture()}.cdx.json"
        write_bill(environment, bill)
        complete_bill(bill, product, version, environment)
    for file in made:
        shutil.copy(file, release)
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(release.iterdir())
    ]
    (release / "SHA256SUMS").write_text("".join(sums), "utf-8")
    return release


def write_bill(environment: Path, file: Path) -> None:
    """Write what *environment* holds as a CycloneDX 1.6 bill of materials.

    The tool asks an interpreter what it finds. The environment's own is the system's, which this
    machine need not have, so one that is built around the same packages answers.
    """
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder)
        (stand_in / "bin").mkdir()
        (stand_in / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        (stand_in / "lib").symlink_to(environment.resolve() / "lib")
        home = Path(sys.executable).resolve().parent
        (stand_in / "pyvenv.cfg").write_text(f"home = {home}\n{ALONE}", "utf-8")
        run(
            str(ROOT / "build" / "release-venv" / "bin" / "cyclonedx-py"),
            "environment",
            *("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"),
            *("--output-file", str(file), str(stand_in / "bin" / "python")),
        )


def complete_bill(file: Path, product: Product, version: str, environment: Path) -> None:
    """Name *product* in the bill *file*, and what JavaScript is built into its page."""
    bill = json.loads(file.read_text("utf-8"))
    root = bill["metadata"]["component"]
    root |= {"name": product.name, "version": version, "description": product.summary}
    [uses] = (entry for entry in bill["dependencies"] if entry["ref"] == root["bom-ref"])
    for notices in environment.glob("lib/*/site-packages/nexus_console/page/licenses.json"):
        for package in json.loads(notices.read_text("utf-8")):
            locator = f"pkg:npm/{package['name'].replace('@', '%40')}@{package['version']}"
            bill["components"].append(
                {
                    "bom-ref": locator,
                    "type": "library",
                    "name": package["name"],
                    "version": package["version"],
                    "purl": locator,
                    "licenses": [{"expression": package["identifier"]}],
                }
            )
            bill["dependencies"].append({"ref": locator})
            uses["dependsOn"].append(locator)
    file.write_text(json.dumps(bill, indent=2) + "\n", "utf-8")
