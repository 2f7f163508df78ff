"""Every file operation of a process, recorded with strace and read back in its order.

Only what lies in the watched folder counts, and the file of marks, whose writes say what the
process had promised by then. An operation is in force once it has returned; of an fsync it also
matters when it began, for what comes later is not covered by it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CALLS: Final = (
    "openat,open,creat,close,pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync,"
    "sync_file_range,ftruncate,truncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,"
    "symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,dup,dup2,dup3,copy_file_range,sendfile"
)
_LINE: Final = re.compile(rb"(\d+) +(.*)")
_CALL: Final = re.compile(rb"(\w+)\((.*)\) += (-?\d+)")
_LONGEST: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Made:
    """One operation that succeeded.

    kind: open, create, write, truncate, allocate, sync, rename, unlink, mkdir or mark. path: within
    the folder, "" for itself; to: where a rename leads. file: which of the files that ever were, by
    number. at: its offset, or the new size. began: how many operations were done when it began.
    """

    kind: str
    path: str = ""
    to: str = ""
    file: int = 0
    at: int = 0
    data: bytes = b""
    began: int = 0
    data_only: bool = False


class TraceError(Exception):
    """The trace holds what this module does not understand: it must, or proves nothing."""


def record(arguments: list[str], trace: Path) -> None:
    """Run a Python module with *arguments* under strace. Raises on a failure of it."""
    command = ["strace", "-f", "--seccomp-bpf", "-xx", "-s", str(_LONGEST), "-e", "signal=none"]
    command += ["-e", f"trace={CALLS}", "-o", str(trace), sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise TraceError(f"{' '.join(arguments[:1])} ended with {done.returncode}: {done.stderr}")


def read(trace: Path, folder: Path, marks: Path) -> list[Made]:
    """The operations of a trace in the order of their ends."""
    return list(_Reader(folder, marks).made(trace))


@dataclass(slots=True)
class _Open:
    """A file descriptor. A directory has file 0."""

    path: str
    file: int
    at: int = 0


class _Reader:
    def __init__(self, folder: Path, marks: Path) -> None:
        self._folder, self._marks = str(folder), str(marks)
        self._files: dict[str, int] = {}
        self._open: dict[int, _Open] = {}
        self._folders = {""}
        self._begun: dict[bytes, tuple[bytes, int]] = {}
        self._count = 0
        self._numbers = 0

    def made(self, trace: Path) -> Iterator[Made]:
        with trace.open("rb") as lines:
            for line in lines:
                whole = self._whole(line)
                if whole is None:
                    continue
                for made in self._translate(*whole):
                    self._count += 1
                    yield made

    def _whole(self, line: bytes) -> tuple[str, list[bytes], int, int] | None:
        """Name, arguments and result of a call that succeeded, and when it began."""
        match = _LINE.match(line)
        if match is None:
            raise TraceError(f"not a line of strace's: {line[:100]!r}")
        thread, text = match.groups()
        began = self._count
        if text.startswith((b"+++", b"---")):
            return None
        if text.endswith(b"<unfinished ...>"):
            self._begun[thread] = text[: -len(b"<unfinished ...>")], began
            return None
        if text.startswith(b"<..."):
            start, began = self._begun.pop(thread)
            text = start.rstrip() + text[text.index(b"resumed>") + 8 :]
        call = _CALL.match(text)
        if call is None:
            if b" = ?" in text:
                return None  # the process ended within it
            raise TraceError(f"not a call: {text[:100]!r}")
        result = int(call[3])
        if result < 0:
            return None
        return call[1].decode(), call[2].split(b", "), result, began

    def _inside(self, argument: bytes) -> str | None:
        """A path within the folder, or None."""
        path = os.fsdecode(_bytes(argument))
        if path == self._folder:
            return ""
        if path.startswith(self._folder + "/"):
            return path[len(self._folder) + 1 :]
        return None

    def _translate(
        self, name: str, arguments: list[bytes], result: int, began: int
    ) -> Iterator[Made]:
        if name in {"openat", "open", "creat"}:
            yield from self._opened(arguments, result)
        elif name == "close":
            self._open.pop(int(arguments[0]), None)
        elif name in {"rename", "renameat", "renameat2"}:
            yield from self._renamed([a for a in arguments if a.startswith(b'"')])
        elif name in {"unlink", "unlinkat", "rmdir"}:
            path = self._inside(next(a for a in arguments if a.startswith(b'"')))
            if path is not None:
                self._files.pop(path, None)
                yield Made("unlink", path)
        elif name in {"mkdir", "mkdirat"}:
            path = self._inside(next(a for a in arguments if a.startswith(b'"')))
            if path:
                self._folders.add(path)
                yield Made("mkdir", path)
        elif any(self._inside(a) is not None for a in arguments if a.startswith(b'"')):
            raise TraceError(f"{name} on {arguments!r} is not understood")
        elif arguments[0].isdigit() and (on := self._open.get(int(arguments[0]))) is not None:
            yield from self._done(on, name, arguments, result, began)

    def _opened(self, arguments: list[bytes], result: int) -> Iterator[Made]:
        self._open.pop(result, None)
        path = os.fsdecode(_bytes(next(a for a in arguments if a.startswith(b'"'))))
        flags = arguments[2] if len(arguments) > 2 else b""
        if path == self._marks:
            self._open[result] = _Open("", -1)
            return
        inside = self._inside(arguments[1])
        if inside is None:
            return
        if inside in self._folders:
            self._open[result] = _Open(inside, 0)
            return
        if inside not in self._files:
            self._numbers += 1
            self._files[inside] = self._numbers
            yield Made("create", inside, file=self._numbers)
        file = self._files[inside]
        self._open[result] = _Open(inside, file)
        if b"O_TRUNC" in flags:
            yield Made("truncate", inside, file=file, at=0)

    def _renamed(self, paths: list[bytes]) -> Iterator[Made]:
        source, target = (self._inside(path) for path in paths)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise TraceError(f"a rename over the folder's edge: {paths!r}")
        self._files[target] = self._files.pop(source)
        yield Made("rename", source, to=target, file=self._files[target])

    def _done(
        self, on: _Open, name: str, arguments: list[bytes], result: int, began: int
    ) -> Iterator[Made]:
        if on.file == -1:
            if name == "write":
                yield Made("mark", data=_bytes(arguments[1])[:result])
        elif name in {"fsync", "fdatasync"}:
            only = name == "fdatasync"
            yield Made("sync", on.path, file=on.file, began=began, data_only=only)
        elif name == "pwrite64":
            data = _bytes(arguments[1])[:result]
            yield Made("write", on.path, file=on.file, at=int(arguments[3]), data=data)
        elif name == "write":
            data = _bytes(arguments[1])[:result]
            yield Made("write", on.path, file=on.file, at=on.at, data=data)
            on.at += len(data)
        elif name == "ftruncate":
            yield Made("truncate", on.path, file=on.file, at=int(arguments[1]))
        elif name == "fallocate":
            size = int(arguments[2]) + int(arguments[3])
            yield Made("allocate", on.path, file=on.file, at=size)
        else:
            raise TraceError(f"{name} on {on.path} is not understood")


def _bytes(argument: bytes) -> bytes:
    r"""What strace -xx shows as "\x6f\x6b"."""
    if not argument.startswith(b'"') or not argument.endswith(b'"'):
        raise TraceError(f"cut short: {argument[:50]!r}")
    return bytes.fromhex(argument[1:-1].replace(b"\\x", b"").decode("ascii"))
