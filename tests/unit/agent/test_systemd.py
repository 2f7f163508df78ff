"""sd_notify against a real datagram socket."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nexus_agent.systemd import Notifier

Manager = tuple[str, Callable[[], bytes]]


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A service manager's address, as systemd writes it, and what receives one message there."""
    unique = uuid.uuid4().hex
    address, bound = (
        (str(tmp_path / "notify"),) * 2
        if request.param == "file"
        else (f"@nexus-{unique}", f"\0nexus-{unique}")
    )
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(bound)
        listening.settimeout(5)
        yield address, lambda: listening.recv(4096)


def test_one_call_is_one_message(manager: Manager) -> None:
    address, receive = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.send(READY="1", STATUS="Über: ready")
    notifier.send(WATCHDOG="1")
    assert receive() == "READY=1\nSTATUS=Über: ready".encode()
    assert receive() == b"WATCHDOG=1"


@pytest.mark.parametrize("address", ["", "@nexus-nobody-listens", "/nonexistent/notify", "x" * 200])
def test_nobody_who_listens_is_no_failure(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).send(READY="1")
    Notifier({}).send(READY="1")


def test_a_manager_that_reads_nothing_stops_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        for _ in range(5000):
            notifier.send(WATCHDOG="1")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_waits(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog_interval == seconds
