from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_agent.status.peer import Role, Rules, peer_of

RULES = Rules(service_uid=990, read_gid=50, change_gid=51)


@pytest.mark.parametrize(
    ("uid", "groups", "role"),
    [
        (0, set(), Role.ADMIN),
        (990, set(), Role.ADMIN),
        (1000, {51}, Role.CHANGE),
        (1000, {50, 51}, Role.CHANGE),
        (1000, {1000, 50}, Role.READ),
        (1000, {1000}, Role.NONE),
        (1000, {0}, Role.NONE),
        (1000, set(), Role.NONE),
    ],
)
def test_role_is_the_highest_that_user_and_groups_give(
    uid: int, groups: set[int], role: Role
) -> None:
    assert RULES.role(uid, groups) is role


def test_without_the_groups_only_root_and_the_service_get_in() -> None:
    rules = Rules(service_uid=990, read_gid=None, change_gid=None)

    assert [rules.role(uid, {uid}) for uid in (0, 990, 1000)] == [
        Role.ADMIN,
        Role.ADMIN,
        Role.NONE,
    ]


def test_peer_is_what_the_kernel_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = peer_of(ours)

    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert peer.groups == {os.getegid(), *os.getgroups()}


CONNECT = """
import os, socket
os.setgroups([54321, 54322])
os.setgid(65534)
os.setuid(65534)
socket.socket(socket.AF_UNIX).connect(NAME)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_supplementary_groups_are_those_of_the_callers_process() -> None:
    name = f"\0nexus-test-{os.getpid()}"  # abstract, unix(7): no file, no mode
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = CONNECT.replace("NAME", repr(name))
        subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=10, cwd=Path("/"))
        connection, _ = server.accept()
    with connection:
        peer = peer_of(connection)

    assert peer.uid == 65534
    assert peer.groups == {65534, 54321, 54322}
