"""Tries, from inside the agent, what its sandbox must refuse, and what it must not."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nexus_agent.plugin import Plugin, Settings

STATE: Final = Path("/var/lib/nexus")
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER: Final = 0x10000000  # unshare(2), <sched.h>
_PTRACE_ATTACH: Final = 16  # ptrace(2), <sys/ptrace.h>


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _write_and_execute() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def _set_clock() -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time())


def _sqlite() -> None:
    connection = sqlite3.connect(STATE / "probe.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.close()


def _child() -> None:
    """A process of a plugin: limits of its own, a pipe, Python."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    code = "import ssl, sqlite3; print('here')"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, preexec_fn=limit, check=True, timeout=30)
    if found.stdout != b"here\n":
        raise OSError(errno.EIO, f"it printed {found.stdout!r}")


def _other_processes() -> None:
    owners = {entry.stat().st_uid for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    if owners <= {os.getuid()}:
        raise PermissionError(errno.EPERM, "no other user's process is to be seen")


def _pair() -> None:
    for each in socket.socketpair():
        each.close()


def _terminal() -> None:
    for each in os.openpty():
        os.close(each)


ATTEMPTS: Final[dict[str, Callable[[], object]]] = {
    "read a file in somebody's home": lambda: Path("/home/eve/secret").read_text(),
    "read a file of root": lambda: Path("/srv/secret").read_text(),
    "write its own settings": lambda: os.open("/etc/nexus/agent.toml", os.O_WRONLY),
    "write its own program": lambda: Path("/usr/lib/nexus-agent/x").write_text("x"),
    "write a file anywhere else": lambda: Path("/var/x").write_text("x"),
    "write for the rollback helper": lambda: Path("/var/lib/nexus-upgrade/x").write_text("x"),
    "see other users' processes": _other_processes,
    "read another's environment": lambda: Path("/proc/1/environ").read_bytes(),
    "trace another": lambda: _call("ptrace", _PTRACE_ATTACH, 1, None, None),
    "kill another": lambda: os.kill(1, 9),
    "read the kernel's log": lambda: os.open("/dev/kmsg", os.O_RDONLY),
    "open memory": lambda: os.open("/dev/mem", os.O_RDONLY),
    "open a disk": lambda: os.open("/dev/vda", os.O_RDONLY),
    "make a device": lambda: os.mknod(STATE / "disk", 0o60600, os.makedev(8, 0)),
    "change a kernel setting": lambda: Path("/proc/sys/kernel/panic").write_text("1"),
    "write a control group": lambda: Path("/sys/fs/cgroup/x").mkdir(),
    "mount": lambda: _call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "have a namespace of its own": lambda: _call("unshare", _CLONE_NEWUSER),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "open a CAN socket": lambda: socket.socket(socket.AF_CAN, socket.SOCK_RAW, 1),
    "set the clock": _set_clock,
    "set the host's name": lambda: socket.sethostname("x"),
    "become root": lambda: os.setuid(0),
    "be setuid": lambda: (STATE / "probe.json").chmod(0o4755),
    "write memory and execute it": _write_and_execute,
    "run at real-time priority": lambda: os.sched_setscheduler(0, 1, os.sched_param(1)),
    "load a kernel module": lambda: _call("syscall", 313, -1, b"", 0),
    "keep its state": lambda: (STATE / "probe.txt").write_text("x"),
    "use SQLite": _sqlite,
    "use its own temporary folder": lambda: Path("/tmp/x").write_text("x"),
    "run a process of a plugin": _child,
    "talk over a socket pair": _pair,
    "open a TCP socket": lambda: socket.socket().close(),
    "open a pseudo terminal": _terminal,
}


class ProbeSettings(Settings):
    """What `[plugins.probe]` takes. do: what it does, once it runs."""

    do: str = "try"


class Probe(Plugin[ProbeSettings]):
    """Does one thing and waits."""

    name = "probe"
    version = "1"
    description = "For tests."
    author = "tests"
    settings_model = ProbeSettings

    async def run(self) -> None:
        deed = self.context.settings.do
        if deed == "try":
            (STATE / "probe.json").touch()
            await self.context.run_blocking(_try)
        elif deed == "fail":
            raise RuntimeError("it always fails")
        elif deed == "talk":
            for number in range(20_000):
                self.context.log.info("talk", number=number)
            self.context.report("talked")
        elif deed == "eat":
            await self.context.run_blocking(_eat)
        elif deed == "stall":
            while not (STATE / "stall").exists():
                await asyncio.sleep(0.1)
            (STATE / "stall").unlink()
            time.sleep(3600)  # noqa: TID251, ASYNC251 - it is there to block the loop
        await asyncio.Event().wait()


def _try() -> None:
    found = {}
    for what, attempt in ATTEMPTS.items():
        try:
            attempt()
        except OSError as error:
            found[what] = errno.errorcode.get(error.errno or 0, str(error))
        except subprocess.SubprocessError as error:
            found[what] = str(error)
        else:
            found[what] = ""
    new = STATE / "probe.new"
    new.write_text(json.dumps(found))
    new.replace(STATE / "probe.json")


def _eat() -> None:
    """Take memory until there is none; note how much there was, MB."""
    kept: list[bytes] = []
    try:
        while len(kept) < 4096:
            kept.append(b"\1" * 2**20)
    except MemoryError:
        pass
    amount = len(kept)
    kept.clear()
    (STATE / "eaten").write_text(str(amount))
