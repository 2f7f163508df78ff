"""How a plugin's process ended, from what it left behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexus_agent import traces
from nexus_agent.discovery import Code

STDERR_BYTES: Final = 64 * 1024
_FATAL: Final = "Fatal Python error"
_TRACE_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Found:
    """reason: for people; trace: the stack, or the last that it wrote."""

    reason: str
    trace: str


def find(stderr: Path, code: Code | None, status: int, why: str, *, at_work: bool) -> Found:
    """What ended the process that has written to *stderr* and left with *status*. Blocks.

    code: of the plugin. status: as `subprocess` has it, below 0 for a signal. why: what is known
    already, or empty; at_work: then say where in its code it was, too.
    """
    dump = _last_words(stderr)
    stack, place = _where(dump, code)
    if why:
        reason = f"{why}{place}" if at_work else why
    elif status < 0:
        reason = f"its process was ended by {signal.Signals(-status).name}{place}"
    else:
        reason = f"its process left with code {status}"
    return Found(reason, "\n".join(stack) or dump[-_TRACE_CHARACTERS:])


def _where(dump: str, code: Code | None) -> tuple[list[str], str]:
    """The stack in what faulthandler wrote, and the innermost place in the plugin's code."""
    if _FATAL not in dump or code is None:
        return [], ""
    _, stack, files = traces.read_dump(dump)
    module = code.module.replace(".", "/")
    for line, file in zip(stack[1:], files, strict=False):
        if module in file:
            return stack, f" at {line.strip()}"
    return stack, ""


def _last_words(stderr: Path) -> str:
    with suppress(OSError), stderr.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - STDERR_BYTES))
        text = file.read().decode("utf-8", "replace")
        at = text.find(_FATAL)
        return text[at:] if at >= 0 else text
    return ""
