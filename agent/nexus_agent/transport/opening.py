"""A connection that is being opened: blocking, under one deadline, and abortable from outside."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Final

TCP_S: Final = 8.0
"""For one address of a name that has several; a dead one must not use up the whole deadline."""
UNACKNOWLEDGED_MS: Final = 30_000
"""TCP_USER_TIMEOUT of tcp(7): how long sent data may stay unacknowledged before the connection is
given up. Linux alone would go on for a quarter of an hour."""
_CHUNK: Final = 4096


class TransportError(ConnectionError):
    """No connection to the broker could be opened; the message names the hop and its answer."""


class Opening:
    """The socket while it is being opened. Everything but `abort` belongs to one thread."""

    def __init__(self, within: float) -> None:
        self._within = within
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def connect(self, host: str, port: int, who: str) -> None:
        """Start the clock and open TCP to *who*, which messages say. Raises TransportError."""
        self._deadline = time.monotonic() + self._within
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TransportError(f"cannot resolve {host}: {reason(error)}") from None
        failure: OSError = TransportError("no address")
        for family, kind, protocol, _, address in found:
            self.hold(socket.socket(family, kind, protocol))
            # Without it a publish of 64 KB waits for the delayed ACK of the one before.
            self.held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.held.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
            try:
                self.held.settimeout(min(TCP_S, self._left()))
                self.held.connect(address)
            except OSError as error:
                failure = error
                self.close()
            else:
                return
        raise TransportError(f"cannot reach {who}: {reason(failure)}")

    def secure(self, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """TLS to *host*, whatever the bytes pass through. Raises TransportError."""
        try:
            self.held.settimeout(self._left())
            wrapped = tls.wrap_socket(
                self.held, server_hostname=host, do_handshake_on_connect=False
            )
            self.hold(wrapped)
            wrapped.do_handshake()
        except (OSError, ValueError) as error:
            raise TransportError(f"TLS with {host}: {reason(error)}") from None
        return wrapped

    def send(self, data: bytes) -> None:
        self.held.settimeout(self._left())
        self.held.sendall(data)

    def receive(self, at_most: int = _CHUNK) -> bytes:
        """Some bytes. Raises OSError, at the end of the stream too."""
        self.held.settimeout(self._left())
        data = self.held.recv(at_most)
        if not data:
            raise ConnectionResetError("the connection was closed")
        return data

    def receive_exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.receive(count - len(data))
        return data

    @property
    def held(self) -> socket.socket:
        if self._socket is None:
            raise TransportError("the connection is not open")
        return self._socket

    def hold(self, sock: socket.socket) -> None:
        """Make *sock* what an abort shuts down."""
        with self._lock:
            self._socket = sock
            aborted = self._aborted
        if aborted:
            self.close()
            raise TransportError("given up")

    def close(self) -> None:
        with self._lock:
            sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def abort(self) -> None:
        """Let whatever waits for the other side fail now. From any thread."""
        with self._lock:
            self._aborted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which would take TLS away under the other thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0 or self._aborted:
            raise TimeoutError(f"no answer within {self._within:g} s")
        return left


def reason(error: Exception) -> str:
    """What *error* means to a person."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return str(error)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
