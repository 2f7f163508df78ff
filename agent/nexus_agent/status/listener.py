"""The socket file: made so that nobody connects too early, and never taken from a live agent."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_PATH_BYTES: Final = 107
"""sun_path of unix(7) has 108 bytes, the last of them NUL."""

SOCKET_MODE: Final = 0o660
FOLDER_MODE: Final = 0o750
_BACKLOG: Final = 64
_PROBE_S: Final = 1.0


class StatusError(Exception):
    """The status socket cannot be opened; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the identity of its file."""

    socket: socket.socket
    path: Path
    inode: tuple[int, int]

    def close(self) -> None:
        """Close the socket and remove its file, unless another agent's stands there by now."""
        self.socket.close()
        with suppress(OSError):
            if _inode(self.path) == self.inode:
                self.path.unlink()


def listen(path: Path, group: int | None) -> Listener:
    """Listen on *path* with mode 0660 for *group*, where there is one and we may give it away.

    A missing folder is made with mode 0750. The file of an agent that died is replaced. Blocks for
    up to a second; raises StatusError.
    """
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise StatusError(
            f"{path}: the socket's path has {len(os.fsencode(path))} bytes, "
            f"{MAX_PATH_BYTES} are possible: set agent.socket to a shorter one"
        )
    try:
        _make_folder(path.parent, group)
        with _locked(path.parent):
            _clear(path)
            return _bind(path, group)
    except OSError as error:
        raise StatusError(f"{path}: cannot listen: {error.strerror or error}") from None


def _make_folder(folder: Path, group: int | None) -> None:
    if folder.is_dir():
        return
    folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    _give(folder, group, FOLDER_MODE)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one agent at a time look at what is there and put its own socket in its place."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StatusError(f"{path}: is there already and is no socket: move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (BlockingIOError, TimeoutError):
            pass  # Somebody listens and has too much to do to answer.
    raise StatusError(f"{path}: another agent listens there: stop it, or set agent.socket")


def _bind(path: Path, group: int | None) -> Listener:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        server.bind(os.fspath(path))
        # Nobody can connect before `listen`, so nobody gets in before the mode is right.
        _give(path, group, SOCKET_MODE)
        server.listen(_BACKLOG)
        server.setblocking(False)
        return Listener(server, path, _inode(path))
    except OSError:
        server.close()
        raise


def _give(path: Path, group: int | None, mode: int) -> None:
    if group is not None:
        with suppress(PermissionError):  # Not a member: the service's own group keeps it.
            os.chown(path, -1, group)
    path.chmod(mode)


def _inode(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
