"""MQTT over WebSocket (RFC 6455, MQTT 5.0 section 6), in the shape of a socket that paho can use.

paho has a WebSocket of its own, which loses a packet when the kernel takes only a part of it,
answers a ping without a mask, masks byte by byte and does not tell the server's HTTP status.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from nexus_agent.transport.opening import Opening, TransportError, reason

SUBPROTOCOL: Final = "mqtt"
"""IANA WebSocket subprotocol name registry; MQTT 5.0 section 6.0."""
_FRAME: Final = 64 * 1024
_READ: Final = 64 * 1024
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WebSocket:
    """Sends and receives MQTT's bytes in binary frames. Non-blocking once it is open."""

    def __init__(self, opening: Opening, host: str, port: int, path: str) -> None:
        """Upgrade the connection of *opening*, which has TLS. Raises TransportError."""
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._socket = opening.held
        self._in = bytearray()
        self._out = bytearray()
        self._framed = 0
        """Bytes of the caller that are in `_out` and were not yet reported as sent."""
        self._ended = False
        try:
            self._upgrade(opening, host, port, path)
        except ProtocolError as error:
            raise TransportError(f"{host} does not speak WebSocket: {error}") from None
        except TransportError:
            raise
        except OSError as error:
            raise TransportError(
                f"{host} did not answer the WebSocket upgrade: {reason(error)}"
            ) from None

    def _upgrade(self, opening: Opening, host: str, port: int, path: str) -> None:
        name = f"[{host}]" if ":" in host else host
        request = Request(
            host=name if port == 443 else f"{name}:{port}", target=path, subprotocols=[SUBPROTOCOL]
        )
        opening.send(self._protocol.send(request))
        while True:
            self._protocol.receive_data(opening.receive())
            events = self._protocol.events()
            for event in events:
                if isinstance(event, RejectConnection):
                    raise TransportError(_refusal(host, path, event.status_code))
                if isinstance(event, AcceptConnection):
                    if event.subprotocol != SUBPROTOCOL:
                        raise TransportError(f"{host}{path} is a WebSocket, but not one for MQTT")
                    for early in events:
                        self._take(early)
                    return

    def recv(self, size: int) -> bytes:
        """At most *size* bytes; empty at the end. Raises BlockingIOError and its TLS kin."""
        while not self._in and not self._ended:
            data = self._socket.recv(_READ)
            try:
                self._protocol.receive_data(data or None)
                for event in self._protocol.events():
                    self._take(event)
            except ProtocolError as error:
                raise ConnectionAbortedError(f"the broker broke WebSocket: {error}") from None
        found = bytes(self._in[:size])
        del self._in[:size]
        return found

    def _take(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            self._in += event.data
        elif isinstance(event, Ping):
            self._out += self._protocol.send(event.response())
            with suppress(*_WOULD_BLOCK):
                self._flush()
        elif isinstance(event, CloseConnection):
            self._ended = True
        elif isinstance(event, TextMessage):
            raise ConnectionAbortedError("the broker sent text where MQTT is binary")

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes of *data* are with the kernel.

        Raises BlockingIOError and its TLS kin; then the same data must be given again.
        """
        if not self._framed:
            part = bytes(data[:_FRAME])
            self._out += self._protocol.send(BytesMessage(data=part))
            self._framed = len(part)
        self._flush()
        sent, self._framed = self._framed, 0
        return sent

    def _flush(self) -> None:
        while self._out:
            del self._out[: self._socket.send(self._out)]

    def pending(self) -> int:
        """Bytes that can be read although the kernel shows none."""
        below = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return len(self._in) + below

    def fileno(self) -> int:
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        self._socket.setblocking(flag)

    def close(self) -> None:
        self._socket.close()


def _refusal(host: str, path: str, status: int) -> str:
    try:
        words = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        words = str(status)
    return f"{host} refused the WebSocket upgrade of {path}: HTTP {words}"
