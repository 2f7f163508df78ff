"""Who is at the other end of the status socket, and what that person may do.

The kernel answers, not the caller: SO_PEERCRED (unix(7)) holds the process, user and group that
connected, SO_PEERGROUPS (Linux 4.13) the supplementary groups that it had then. No user database
is asked, so nothing can block, and a process that gave a group up does not get it back here.
"""

from __future__ import annotations

import enum
import errno
import grp
import os
import pwd
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

READ_GROUP: Final = "nexus"
CHANGE_GROUP: Final = "nexus-admin"

_UCRED: Final = struct.Struct("iII")
"""struct ucred of unix(7): pid_t, uid_t, gid_t."""
_SO_PEERGROUPS: Final = 59
"""include/uapi/asm-generic/socket.h; the socket module has no name for it."""
_GID: Final = struct.Struct("I")
_GROUPS_BYTES: Final = 1024
"""As much as CPython's getsockopt takes: 256 groups."""


class Role(enum.IntEnum):
    """What a caller may do; each role may do what the ones below it may."""

    NONE = 0
    READ = 1
    CHANGE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected. groups holds its group and its supplementary groups."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may do what: ids of the service's user and of the two groups, None where there is none.

    Root and the service's own user may do all.
    """

    service_uid: int
    read_gid: int | None
    change_gid: int | None

    def role(self, uid: int, groups: Collection[int]) -> Role:
        """The highest role of a user with these groups."""
        if uid in {0, self.service_uid}:
            return Role.ADMIN
        if self.change_gid in groups:
            return Role.CHANGE
        if self.read_gid in groups:
            return Role.READ
        return Role.NONE


class _Options(Protocol):
    """The one method that the sockets of the standard library, asyncio and uvloop share here."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_of(connection: _Options) -> Peer:
    """Who opened *connection*, a connected Unix socket. Raises OSError where it is none."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(pid, uid, gid, frozenset((gid, *_supplementary(connection))))


def _supplementary(connection: _Options) -> list[int]:
    """The caller's supplementary groups; none where they are too many or the kernel too old."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as error:
        if error.errno in {errno.ERANGE, errno.ENOPROTOOPT}:
            return []
        raise
    return [number for (number,) in _GID.iter_unpack(raw)]


def name_of(uid: int) -> str:
    """What user *uid* is called on this machine. Asks the user database: may block."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def local_rules() -> Rules:
    """The rules of this process and this machine's groups. Asks the group database: may block."""
    return Rules(os.geteuid(), _gid(READ_GROUP), _gid(CHANGE_GROUP))


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
