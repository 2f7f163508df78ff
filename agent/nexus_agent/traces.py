"""What may be told of a death: where in the code it was, and words without a VIN or a secret.

A line of a stack is `file:line in function`. No source lines, no values of variables.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

LINES: Final = 200
LINE_CHARACTERS: Final = 300
REASON_CHARACTERS: Final = 500
_CHAIN: Final = 8
"""Errors behind an error, or beside it, that are followed."""

_BYTE: Final = r"(?:\\x|0x)?[0-9a-f]{2}"
_HIDDEN: Final = (
    (re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|$)", re.DOTALL), "[key]"),
    (re.compile(r"(?<=://)[^\s/@]+@"), "[secret]@"),
    (
        re.compile(
            r"(?i)\b(pass(?:word|wd|phrase)|secret|token|api[_-]?key|private[_ -]key)"
            r"(['\"]?\s*[:=]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;]+)"
        ),
        r"\1\2[secret]",
    ),
    # ISO 3779: 17 characters without I, O and Q.
    (re.compile(r"(?i)(?<![a-z0-9])[a-hj-npr-z0-9]{17}(?![a-z0-9])"), "[vin]"),
    # Raw answers of a vehicle may hold one; 12 bytes and more is also what keys look like.
    (re.compile(rf"(?i)(?:{_BYTE}[ :,-]{{0,2}}){{11,}}{_BYTE}"), "[bytes]"),
)
_FRAME: Final = re.compile(r'^ +File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
"""One frame as faulthandler writes it."""
_SIGNALS: Final = {
    "Aborted": "SIGABRT",
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
"""faulthandler's words for what it caught (docs.python.org/3/library/faulthandler.html)."""
_INSTALLED: Final = re.compile(
    r"^.*/(?:(?:site|dist)-packages|lib/python3\.\d+)/|^.*/(?=nexus_\w+/)"
)


def redact(text: str, limit: int = LINE_CHARACTERS) -> str:
    """*text* on one line, cut to *limit* characters, without what may not leave the box."""
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    text = " ".join(text.split()).encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def first_of(error: BaseException) -> BaseException:
    """*error*; of a group, the first in it that is no group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """Type and message of *error*, or of the first of a group."""
    error = first_of(error)
    return redact(f"{type(error).__name__}: {error}", REASON_CHARACTERS)


def stack_of(error: BaseException) -> list[str]:
    """*error* with those that caused it, or that it is a group of: each with its frames."""
    trace = traceback.TracebackException.from_exception(error, lookup_lines=False)
    return list(_lines(trace, _CHAIN))[:LINES]


def files_of(error: BaseException) -> list[str]:
    """Paths of the code that raised *error*, innermost first."""
    trace = first_of(error).__traceback__
    return [frame.filename for frame in reversed(traceback.extract_tb(trace))]


def _lines(trace: traceback.TracebackException, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    before = None if trace.__suppress_context__ else trace.__context__
    if before := trace.__cause__ or before:
        yield from _lines(before, depth - 1)
        yield "then:"
    yield redact("".join(trace.format_exception_only()))
    for frame in trace.stack:
        yield line_of(frame.filename, frame.lineno or 0, frame.name)
    for part in (trace.exceptions or ())[:_CHAIN]:
        yield from _lines(part, depth - 1)


def read_dump(text: str) -> tuple[str, list[str], list[str]]:
    """What faulthandler wrote: the signal, the stack of every thread, and the files of the first.

    The thread that was running comes first.
    """
    title, _, rest = text.partition("\n\n")
    words = title.removeprefix("Fatal Python error: ").strip()
    blocks = [part for part in rest.split("\n\n") if " thread " in f" {part.lower()}"]
    blocks.sort(key=lambda part: not part.startswith("Current thread"))
    stack: list[str] = []
    for block in blocks:
        stack.append(redact(block.partition("\n")[0]))
        stack += [line_of(file, int(line), name) for file, line, name in _FRAME.findall(block)]
    files = [file for file, _, _ in _FRAME.findall(blocks[0])] if blocks else []
    return redact(_SIGNALS.get(words, words)), stack[:LINES], files


def plugin_among(files: Sequence[str], places: Mapping[str, str]) -> str | None:
    """The plugin whose code is the innermost of *files* that is any plugin's.

    *places*: the folder (with its slash) or the file of each. None where it is nobody's or two have
    one place.
    """
    for file in files:
        owners = [name for name, place in places.items() if file.startswith(place)]
        if owners:
            return owners[0] if len(owners) == 1 else None
    return None


def line_of(file: str, line: int, function: str) -> str:
    """One line of a stack, with the file's path as short as it can be told."""
    short = _INSTALLED.sub("", file)
    if short == file:
        short = "/".join(file.split("/")[-3:])
    return f"  {short}:{line} in {function}"[:LINE_CHARACTERS]
