"""Telling systemd how the service is: the sd_notify(3) protocol, one datagram a message."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends state to `$NOTIFY_SOCKET`; without one, every call does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # sd_notify(3): a leading @ stands for the NUL of an abstract socket's name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_us = int(environ.get("WATCHDOG_USEC", "0") or "0")
        if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            self._watchdog_us = 0

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two WATCHDOG=1, half of what systemd waits; None where it does not."""
        return self._watchdog_us / 2_000_000 if self._watchdog_us else None

    def send(self, **state: str) -> None:
        """Send `KEY=value` lines, such as `send(READY="1", STATUS="online")`.

        A service manager that has gone away is not this process's failure: OSError is dropped.
        """
        if not self._address:
            return
        message = "\n".join(f"{key}={value}" for key, value in state.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            try:
                channel.sendto(message.encode(), self._address)
            except OSError:
                return
