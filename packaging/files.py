"""What each package puts on a machine beside its Python: units, settings, commands, papers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tree import ROOT


@dataclass(frozen=True)
class Product:
    """One installation: the agent's or the console's."""

    name: str
    """The Debian package."""
    lock: str
    """Its lock file in requirements/."""
    home: str
    """Where its versions are."""
    leaves_out: str
    """The part of the wheel that it never runs."""
    summary: str
    about: str
    """What it does, in a few lines of the package's description."""
    commands: dict[str, str]
    """Commands in /usr/bin, and the module that each one runs."""
    files: dict[str, str]
    """Other files: where to, from where in the repository."""


def _units(*names: str) -> dict[str, str]:
    return {f"usr/lib/systemd/system/{name}": f"systemd/{name}" for name in names}


def _users(name: str) -> dict[str, str]:
    return {
        f"usr/lib/{folder}/{name}.conf": f"systemd/{folder}/{name}.conf"
        for folder in ("sysusers.d", "tmpfiles.d")
    }


AGENT: Final = Product(
    name="nexus-core-agent",
    lock="agent.txt",
    home="usr/lib/nexus-agent",
    leaves_out="nexus_console",
    summary="agent on a repair shop's diagnostic PC",
    about="Reads vehicles through plugins, keeps every reading safe on local disk while the\n"
    "network or the power is gone, and hands it to a fleet console over MQTT.",
    commands={"nexus": "nexus_agent.cli", "nexus-agent": "nexus_agent"},
    files={
        **_units(
            "nexus-agent.service",
            "nexus-agent-failed.service",
            "nexus-agent-trial.service",
            "nexus-agent-trial.timer",
            "nexus-clock.service",
        ),
        **_users("nexus-agent"),
        "etc/nexus/agent.toml": "config/agent.toml",
        "usr/lib/nexus-agent/layout.sh": "packaging/layout.sh",
        "usr/lib/nexus-agent/trial": "packaging/trial",
        "usr/lib/nexus-agent/failed": "packaging/failed",
        "usr/share/nexus-agent/drop-ins": "systemd/drop-ins",
    },
)
CONSOLE: Final = Product(
    name="nexus-core-console",
    lock="console.txt",
    home="usr/lib/nexus-console",
    leaves_out="nexus_plugins",
    summary="fleet console that hears the agents",
    about="Keeps what the agents deliver over MQTT in SQLite or PostgreSQL, acknowledges it once\n"
    "it is safe there, and shows boxes, vehicles and events on a web page.",
    commands={"nexus-console": "nexus_console"},
    files={
        **_units("nexus-console.service"),
        **_users("nexus-console"),
        "etc/nexus-console/console.toml": "config/console.toml",
    },
)
PRODUCTS: Final = {"agent": AGENT, "console": CONSOLE}


def lay_out(product: Product, into: Path) -> None:
    """Put all of *product* but its Python below *into*, as it lies below `/`."""
    papers = f"usr/share/doc/{product.name}"
    brought = {f"{papers}/copyright": "LICENSE", f"{papers}/README.md": "README.md"}
    for target, source in {**product.files, **brought}.items():
        path = into / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, path)
        else:
            shutil.copy(ROOT / source, path)
        if target.startswith("etc/"):
            # Settings may hold secrets; the installation gives them to the service's group.
            path.chmod(0o640)
            path.parent.chmod(0o750)
    wrapper = (ROOT / "packaging" / "wrapper.sh").read_text("utf-8")
    (into / "usr" / "bin").mkdir(parents=True)
    for command, module in product.commands.items():
        path = into / "usr" / "bin" / command
        path.write_text(
            wrapper.replace("@HOME@", f"/{product.home}").replace("@MODULE@", module), "utf-8"
        )
        path.chmod(0o755)
