"""Build what is installed: `python packaging/build.py deb|bundle|release [--version V]`."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from bundle import build_bundle
from deb import build_deb
from files import PRODUCTS
from release import build_release
from tree import ROOT, build_wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["deb", "bundle", "release"])
    parser.add_argument("--version", default=project_version(), help="another one, for a test")
    parser.add_argument("--only", choices=PRODUCTS, help="one of the Debian packages")
    parser.add_argument("--level", type=int, default=6, help="of compression: 0 is fast")
    parser.add_argument("--into", type=Path, default=ROOT / "build", help="default: build")
    options = parser.parse_args()
    if options.what == "release":
        print(build_release(options.version, options.into, level=options.level))
        return
    folder = options.into / options.what
    folder.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel(options.version, folder)
    if options.what == "bundle":
        print(build_bundle(options.version, wheel, folder))
        return
    for kind, product in PRODUCTS.items():
        if options.only in {None, kind}:
            print(build_deb(product, options.version, wheel, folder, level=options.level))


def project_version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version: str = project["version"]
    return version


if __name__ == "__main__":
    main()
