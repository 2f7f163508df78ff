"""A child process with a log file, which cannot outlive its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nexus_demo.waiting import DemoError

GRACE_S: Final = 5.0
"""How long a process may take to stop after SIGTERM before SIGKILL ends it."""

_PR_SET_PDEATHSIG: Final = 1  # prctl(2), <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    """A TCP port that nothing uses on loopback at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    # Runs between fork and exec. "Parent" is the thread that forked: here it is the main thread.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One command, started and stopped any number of times; its output is appended to *log*.

    It leads a process group of its own, so that Ctrl-C reaches the demo alone and the demo decides
    the order in which things stop. The kernel kills it if the demo dies without stopping it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environ: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._cwd = cwd
        self._command = [str(part) for part in command]
        self._environ = dict(os.environ if environ is None else environ)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise DemoError(f"{self.name} was never started")
        return self._process.pid

    async def start(self) -> None:
        if self.running:
            raise DemoError(f"{self.name} is running already")
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                cwd=self._cwd,
                process_group=0,
                preexec_fn=_die_with_parent,
            )

    async def stop(self) -> int | None:
        """SIGTERM, then SIGKILL after GRACE_S; the exit code, negative for a signal's number."""
        if self._process is None:
            return None
        if self.running:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._process.wait()
        await self.kill()
        return self._process.returncode

    async def kill(self) -> None:
        """SIGKILL to the process and its group; nothing if it has ended already."""
        if self._process is None or not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def check(self) -> None:
        """Raise DemoError with the end of its log if it has ended by itself."""
        if self._process is not None and not self.running:
            raise DemoError(
                f"{self.name} ended with code {self._process.returncode}\n{self.tail()}"
            )

    def tail(self, lines: int = 15) -> str:
        """The end of its log, indented, under the log's name."""
        try:
            text = self.log.read_text("utf-8", errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            text = ["(nothing was written)"]
        return "\n".join([f"  {self.log}:", *(f"    {line}" for line in text)])
