"""`nexus plugin check`: has a plugin checked in a process of its own, and hears what is found."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nexus_agent.discovery import MANIFEST, Code
from nexus_agent.workbench.findings import Finding, failed, passed

_GRACE_S: Final = 2.0
_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+) in (\S+)')
"""A line of faulthandler's."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. limit: for all checks together; within: for a plugin at work, and for its end."""

    limit: float = 90.0
    within: float = 5.0
    """What `Plugin.run` promises."""


def check(code: Code, patience: Patience = Patience()) -> Iterator[Finding]:
    """What is found, as it is found."""
    if code.folder is not None:
        yield passed("manifest", f"{MANIFEST} names {code.module}:{code.attribute}")
    with tempfile.TemporaryDirectory(prefix="nexus-check-") as folder:
        output = Path(folder) / "output"
        with output.open("wb") as file, _started(code, patience, Path(folder), file) as process:
            begun = "import"
            for message in process.messages():
                if "begin" in message:
                    begun = message["begin"]
                elif "finding" in message:
                    yield Finding(**message["finding"])
                else:
                    return
            died = process.end()
        text = output.read_text("utf-8", errors="replace")
    yield failed(begun, died + _last_place(text, code), "a plugin must not end its process")


class _Inspector:
    """The process of `nexus_agent.workbench.inspector`, and the line from it."""

    def __init__(self, process: subprocess.Popen[bytes], line: int, limit_s: float) -> None:
        self._process = process
        self._line = line
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s + _GRACE_S

    def messages(self) -> Iterator[dict[str, Any]]:
        """What it says, until it is gone or its time is over."""
        ended = os.pidfd_open(self._process.pid)
        rest = b""
        try:
            while (patience := self._deadline - time.monotonic()) > 0:
                ready, _, _ = select.select([self._line, ended], [], [], patience)
                chunk = os.read(self._line, 65_536) if self._line in ready else b""
                if not chunk and ready:
                    return
                *lines, rest = (rest + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            os.close(ended)

    def end(self) -> str:
        """How it ended, in words."""
        try:
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"it took more than {self._limit_s:g} s"
        if code < 0:
            return f"{signal.Signals(-code).name} ended the process"
        if time.monotonic() > self._deadline - _GRACE_S:
            return f"it took more than {self._limit_s:g} s"
        return f"the process ended itself, with exit code {code}"


@contextmanager
def _started(code: Code, patience: Patience, folder: Path, output: Any) -> Iterator[_Inspector]:
    """The inspector; it and all that it started are gone after the block."""
    ours, theirs = os.pipe()
    with ExitStack() as undo:
        undo.callback(os.close, ours)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [
                    *(sys.executable, "-I", "-B", "-m", "nexus_agent.workbench.inspector"),
                    *(str(theirs), json.dumps(code.document())),
                    *(str(patience.limit), str(patience.within)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder)},
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        undo.pop_all()
    try:
        yield _Inspector(process, ours, patience.limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)


def _last_place(text: str, code: Code) -> str:
    """Where the plugin was when it crashed or time was over, if its stack tells."""
    if code.folder is not None:
        for file, line, function in _FRAME.findall(text):
            if Path(file).is_relative_to(code.folder):
                return f", at {Path(file).relative_to(code.folder)}:{line} in {function}"
    return ""
