"""DoIP messages (ISO 13400-2) over one TCP connection, and the question who is there over UDP.

The messages are doipclient's. Its client is not used: it connects without a time limit, looks at
nothing else while it waits, and drops the answer of a gateway that does not acknowledge first.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from doipclient.messages import (
    VehicleIdentificationRequest,
    VehicleIdentificationResponse,
    payload_message_to_type,
    payload_type_to_message,
)

from nexus_plugins.uds.link import LinkError

_HEADER: Final = struct.Struct("!BBHI")
"""Version, its inverse, payload type, payload length (ISO 13400-2 table 16)."""
_LONGEST: Final = 65_536
"""A message that announces more bytes is no answer to any question here."""
_ANY_VERSION: Final = 0xFF
"""For the vehicle identification request, whose asker cannot know the version (table 16)."""

_KINDS: Final[dict[int, Any]] = payload_type_to_message

Patience = Callable[[float], float]
"""`Link.patience`."""


class Unknown:
    """A message that is not known, or not as long as it must be."""

    def __init__(self, payload_type: int) -> None:
        self.payload_type = payload_type


def pack(version: int, message: Any) -> bytes:
    """One message with its header."""
    payload = message.pack()
    kind = payload_message_to_type[type(message)]
    return _HEADER.pack(version, version ^ 0xFF, kind, len(payload)) + bytes(payload)


def unpack(kind: int, payload: bytes) -> Any:
    """The message, or Unknown."""
    try:
        return _KINDS[kind].unpack(payload, len(payload))
    except (KeyError, struct.error):
        return Unknown(kind)


class Connection:
    """One TCP connection; messages go whole or not at all."""

    def __init__(self, sock: socket.socket, version: int, patience: Patience) -> None:
        self._socket = sock
        self._version = version
        self._patience = patience
        self._buffer = bytearray()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Any, until: float) -> None:
        """Raises LinkError."""
        rest = memoryview(pack(self._version, message))
        while rest:
            wait = self._patience(until)
            if not _ready(self._socket, select.POLLOUT, wait):
                if wait <= 0:
                    raise LinkError("the gateway takes nothing")
                continue
            try:
                rest = rest[self._socket.send(rest) :]
            except OSError as error:
                raise LinkError(_closed(error)) from error

    def receive(self, until: float) -> Any:
        """The next message, or None when none came. Raises LinkError."""
        while True:
            wait = self._patience(until)
            message = self._next()
            if message is not None:
                return message
            if not _ready(self._socket, select.POLLIN, wait):
                if wait <= 0:
                    return None
                continue
            try:
                data = self._socket.recv(65_536)
            except OSError as error:
                raise LinkError(_closed(error)) from error
            if not data:
                raise LinkError("the gateway has closed the connection")
            self._buffer += data

    def _next(self) -> Any:
        """A whole message of the buffer, or None."""
        if len(self._buffer) < _HEADER.size:
            return None
        version, inverse, kind, length = _HEADER.unpack_from(self._buffer)
        if version ^ inverse != 0xFF:
            raise LinkError("what answers does not speak DoIP")
        if length > _LONGEST:
            raise LinkError(f"the gateway announces a message of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return unpack(kind, payload)


def connect(
    host: str, port: int, version: int, *, within_s: float, patience: Patience
) -> Connection:
    """Connect to a gateway. Raises LinkError."""
    until = time.monotonic() + within_s
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            code = sock.connect_ex((host, port))
        except OSError as error:
            raise LinkError(f"{host} is no address that can be reached: {error}") from error
        while code == errno.EINPROGRESS:
            wait = patience(until)
            if _ready(sock, select.POLLOUT, wait):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            elif wait <= 0:
                raise LinkError(f"no DoIP gateway answers at {host}, port {port}")
        if code:
            raise LinkError(f"no DoIP gateway at {host}, port {port}: {os.strerror(code)}")
        undo.pop_all()
    return Connection(sock, version, patience)


def find(address: str, port: int, *, within_s: float, patience: Patience) -> str:
    """The IP address of the first DoIP gateway that answers there. Raises LinkError."""
    until = time.monotonic() + within_s
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    question = pack(_ANY_VERSION, VehicleIdentificationRequest())
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            if family == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(question, (address, port))
        except OSError as error:
            raise LinkError(f"{address} cannot be asked for gateways: {error.strerror}") from error
        while True:
            wait = patience(until)
            if not _ready(sock, select.POLLIN, wait):
                if wait <= 0:
                    raise LinkError(f"no DoIP gateway answers at {address}, UDP port {port}")
                continue
            try:
                data, sender = sock.recvfrom(2048)
            except OSError:
                continue  # an ICMP answer to a host that is not there
            if _identifies(data):
                return str(sender[0])


def _identifies(datagram: bytes) -> bool:
    """Whether it is a vehicle identification response (table 5); the VIN in it is not looked at."""
    if len(datagram) < _HEADER.size:
        return False
    version, inverse, kind, length = _HEADER.unpack_from(datagram)
    payload = datagram[_HEADER.size :]
    if version ^ inverse != 0xFF or length != len(payload):
        return False
    return isinstance(unpack(kind, payload), VehicleIdentificationResponse)


def _ready(sock: socket.socket, event: int, wait: float) -> bool:
    """Whether the socket can be read or written, or has failed, within *wait* seconds."""
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(wait * 1000))


def _closed(error: OSError) -> str:
    return f"the gateway has closed the connection ({error.strerror or error})"
