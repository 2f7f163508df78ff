"""A Debian with a systemd of its own: a container that boots in seconds and can lose its power."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, Final

from nexus_demo import api
from nexus_demo.processes import Process
from nexus_demo.waiting import NotYet, until

SUITE: Final = "bookworm"
INCLUDE: Final = "systemd,systemd-sysv,dbus,python3,ca-certificates,faketime"
INSTALL: Final = ("dpkg", "--install", "--force-unsafe-io")
"""Without a flush for each of thousands of files: no test cuts the power while dpkg works."""
LANDLOCK: Final = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
BOOT_S: Final = 60.0
COMMAND_S: Final = 120.0
_ENVIRON: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class CommandError(Exception):
    """A command on the machine failed; the message has what it printed."""


async def debian() -> Path:
    """A Debian as debootstrap makes it, made once on this machine. Raises CommandError."""
    mark = hashlib.sha256(f"{SUITE} {INCLUDE}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nexus-core"
    folder = cache / f"debian-{mark}"
    if not folder.is_dir():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        await command(
            *("debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(new)),
            within=600,
        )
        new.rename(folder)
    return folder


async def command(*words: str, within: float = COMMAND_S, check: bool = True) -> str:
    """Run a command out here; what it printed. Raises CommandError if it failed."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(within):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    if check and process.returncode != 0:
        raise CommandError(f"{' '.join(words)}: exit code {process.returncode}\n{text}")
    return text


class Machine:
    """One container on *root*. It shares our network, and nothing else.

    options: more of systemd-nspawn's, from the next boot on.
    """

    def __init__(self, name: str, root: Path, log: Path, options: tuple[str, ...] = ()) -> None:
        self.root = root
        self.options = options
        self._name = name
        self._log = log
        self._process = Process(name, [], log)

    async def boot(self) -> None:
        """Switch it on; return once systemd has started everything."""
        self._process = Process(
            self._name,
            [
                *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}"),
                *(f"--machine={self._name}", "--register=no", "--keep-unit", "--console=pipe"),
                f"--system-call-filter={LANDLOCK}",  # as on a machine of its own
                *self.options,
            ],
            self._log,
        )
        await self._process.start()
        await until(f"{self._name} is up", self._up, within=BOOT_S)

    async def cut(self) -> None:
        """Cut its power: nothing on it gets another instruction."""
        with contextlib.suppress(NotYet, OSError):
            # The kernel takes every other process of the container with its first one.
            os.kill(self.init, signal.SIGKILL)
        await self._process.kill()

    async def _up(self) -> None:
        self._process.check()
        state = (await self.run("systemctl", "is-system-running", check=False)).strip()
        if state not in {"running", "degraded"}:
            raise NotYet(f"systemd says {state!r}")

    @property
    def init(self) -> int:
        """The process id, out here, of its systemd. NotYet before there is one."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        if not children:
            raise NotYet("it has no first process yet")
        return int(children[0])

    async def run(self, *words: str, within: float = COMMAND_S, check: bool = True) -> str:
        """Run a command on it as root; what it printed. Raises CommandError if it failed."""
        environ = (f"{name}={value}" for name, value in _ENVIRON.items())
        enter = ("nsenter", f"--target={self.init}", "--mount", "--uts", "--ipc", "--pid")
        return await command(*enter, "env", "-i", *environ, *words, within=within, check=check)

    async def show(self, unit: str, name: str) -> str:
        """A property of *unit*, as `systemctl show` says it."""
        return (await self.run("systemctl", "show", "--value", "--property", name, unit)).strip()

    async def journal(self, unit: str) -> list[dict[str, Any]]:
        """The journal's entries of *unit* in this boot."""
        text = await self.run("journalctl", "--boot", "--unit", unit, "--output=json", "--all")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def ask(self, path: str) -> Any:
        """What its agent says on its socket at *path*, such as `/v1/status`."""
        # Its /run exists in its own view of the files alone.
        return await api.box(Path(f"/proc/{self.init}/root", "run/nexus/agent.sock"), path)

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Put a file on it."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        file.chmod(mode)

    async def drop_in(self, name: str, text: str, unit: str = "nexus-agent.service") -> None:
        """Add to a unit's settings, as `systemctl edit` does; an empty *text* takes it away."""
        file = f"/etc/systemd/system/{unit}.d/{name}.conf"
        if text:
            self.write(file, text)
        else:
            (self.root / file.lstrip("/")).unlink()
        await self.run("systemctl", "daemon-reload")

    def tail(self) -> str:
        """The end of what it printed."""
        return self._process.tail()
