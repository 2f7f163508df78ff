"""What a plugin's own process gives up before any of the plugin's code is loaded.

It dies with the agent, has limits, starts no process, signals nobody else, and opens no file but
those it was given (Landlock, where the kernel has it). None of this can be taken back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

# prctl(2), <linux/prctl.h>
_SET_PDEATHSIG: Final = 1
_SET_SECCOMP: Final = 22
_SET_NO_NEW_PRIVS: Final = 38

MEGABYTE: Final = 1024 * 1024
_ADDRESS_SPACE: Final = 1024 * MEGABYTE
"""Libraries, thread stacks and reserved arenas take addresses, not memory."""


def with_parent(parent: int) -> None:
    """Have the kernel kill this process when the agent, process *parent*, ends in whatever way."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(0)


def limit(memory_bytes: int, files: int, file_bytes: int) -> None:
    """Bound memory, open files, a written file's size; leave no core file, and give way."""
    _set(resource.RLIMIT_DATA, memory_bytes)
    _set(resource.RLIMIT_AS, memory_bytes + _ADDRESS_SPACE)
    _set(resource.RLIMIT_NOFILE, files)
    _set(resource.RLIMIT_FSIZE, file_bytes)
    _set(resource.RLIMIT_CORE, 0)
    with suppress(OSError):  # systemd's sandbox refuses it
        os.nice(5)


def _set(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _prctl(option: int, *arguments: int | ctypes.Array[ctypes.c_char] | object) -> None:
    if _libc.prctl(option, *(arguments + (0,) * (4 - len(arguments)))) != 0:
        _fail("prctl")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")


# -- no processes, no signals (seccomp) ------------------------------------------------------------

# seccomp(2), <linux/seccomp.h>, <linux/filter.h>, <linux/audit.h>
_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_ABSENT: Final = 0x00050000 | errno.ENOSYS
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_OF: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD: Final = 0x00010000  # clone(2), <linux/sched.h>
_X32: Final = 0x40000000  # x86-64's other numbers, <asm/unistd.h>


class _Calls:
    """Numbers of system calls on one architecture (<asm/unistd.h>)."""

    def __init__(
        self,
        architecture: int,
        forbidden: tuple[int, ...],
        clone: int,
        to_itself: tuple[int, ...],
    ) -> None:
        self.architecture = architecture
        self.forbidden = forbidden
        """fork, vfork, execve, execveat, ptrace, process_vm_readv, process_vm_writev, tkill,
        rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, pidfd_getfd"""
        self.clone = clone
        self.to_itself = to_itself
        """kill and tgkill: their first argument is a process."""


_CLONE3: Final = 435
_CALLS: Final = {
    "x86_64": _Calls(
        0xC000003E, (57, 58, 59, 322, 101, 310, 311, 200, 129, 297, 424, 438), 56, (62, 234)
    ),
    "aarch64": _Calls(
        0xC00000B7, (221, 281, 117, 270, 271, 130, 138, 240, 424, 438), 220, (129, 131)
    ),
}


def alone() -> bool:
    """Refuse to start processes and to signal others; False on a machine that it is not made for.

    Threads may be started: clone with CLONE_THREAD. clone3, whose flags no filter can read, is
    said to be absent, and the C library takes clone.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    rules = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, calls.architecture), _end(_REFUSE)]
    rules += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), _end(_REFUSE)]
    for number in calls.forbidden:
        rules += [(_EQUAL, 0, 1, number), _end(_REFUSE)]
    rules += [(_EQUAL, 0, 1, _CLONE3), _end(_ABSENT)]
    rules += [(_EQUAL, 0, 4, calls.clone), (_LOAD, 0, 0, _FIRST)]
    rules += [(_ANY_OF, 1, 0, _CLONE_THREAD), _end(_REFUSE), _end(_ALLOW)]
    for number in calls.to_itself:
        rules += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST)]
        rules += [(_EQUAL, 1, 0, os.getpid()), _end(_REFUSE), _end(_ALLOW)]
    rules.append(_end(_ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    # struct sock_fprog: a count and a pointer
    program = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(code)))
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.c_void_p(ctypes.addressof(program)))
    return True


def _end(verdict: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, verdict)


# -- few files (Landlock) --------------------------------------------------------------------------

# landlock(7), <linux/landlock.h>; the numbers are the same on every architecture
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ: Final = 1 << 0 | 1 << 2 | 1 << 3  # execute (a library is mapped so), read file, read folder
_FILE: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""What there is to do with a file: execute, write, read, truncate, ioctl."""
_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many of the rights there are from which version of Landlock on."""
_SCOPED: Final = 6
"""From this version on signals and abstract sockets can be kept in: both bits."""


def landlock_version() -> int:
    """The kernel's, 0 if it has none or may not be asked."""
    found: int = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    return max(found, 0)


def enclose(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Open nothing but these from now on; what is not there is left out. False without Landlock."""
    version = landlock_version()
    if version == 0:
        return False
    rights = (1 << max(count for since, count in _RIGHTS.items() if since <= version)) - 1
    attributes = struct.pack("=QQQ", rights, 0, 3 if version >= _SCOPED else 0)
    if version < _SCOPED:
        attributes = attributes[:8]
    ruleset = _libc.syscall(
        _CREATE_RULESET, ctypes.create_string_buffer(attributes), len(attributes), 0
    )
    if ruleset < 0:
        _fail("landlock_create_ruleset")
    try:
        for path in readable:
            _allow(ruleset, path, rights & _READ)
        for path in writable:
            _allow(ruleset, path, rights)
        _prctl(_SET_NO_NEW_PRIVS, 1)
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            _fail("landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE
        # struct landlock_path_beneath_attr, packed
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place))
        if _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
            _fail(f"landlock_add_rule {path}")
    finally:
        os.close(place)
