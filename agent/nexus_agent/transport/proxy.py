"""What a client says to a proxy before the bytes are the broker's: HTTP CONNECT and SOCKS 5.

The proxy is given the broker's name: a box behind one often has no DNS for the outside.
"""

from __future__ import annotations

import base64
import ipaddress
import struct
from typing import Final

from nexus_agent.broker import Proxy
from nexus_agent.transport.opening import Opening, TransportError, reason

_VERSION: Final = 5  # RFC 1928 section 3
_NO_AUTHENTICATION: Final = 0
_USER_PASSWORD: Final = 2
_CONNECT: Final = 1  # section 4
_IPV4, _NAME, _IPV6 = 1, 3, 4
_USER_PASSWORD_VERSION: Final = 1  # RFC 1929 section 2
_REPLIES: Final = {
    1: "general failure",
    2: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
"""RFC 1928 section 6."""


def pass_through(opening: Opening, proxy: Proxy, host: str, port: int) -> None:
    """Have *proxy*, which *opening* has reached, connect to the broker. Raises TransportError."""
    try:
        name = host.encode("idna").decode()
        if proxy.scheme == "http":
            _connect_http(opening, proxy, name, port)
        else:
            _connect_socks(opening, proxy, name, port)
    except TransportError:
        raise
    except (OSError, UnicodeError) as error:
        raise TransportError(f"the proxy {proxy} did not answer: {reason(error)}") from None


def _connect_http(opening: Opening, proxy: Proxy, host: str, port: int) -> None:
    """RFC 9110 section 9.3.6, with Basic authentication (RFC 7617) where we have credentials."""
    import h11

    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = [("Host", target)]
    if proxy.user:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {credentials}"))
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b""
    opening.send(request + (http.send(h11.EndOfMessage()) or b""))
    try:
        while not isinstance(answer := http.next_event(), h11.Response):
            if answer is h11.NEED_DATA:
                http.receive_data(opening.receive())
    except h11.RemoteProtocolError as error:
        raise TransportError(f"the proxy {proxy} does not speak HTTP: {error}") from None
    if not 200 <= answer.status_code < 300:
        words = f"{answer.status_code} {answer.reason.decode('latin-1')}".strip()
        raise TransportError(f"the proxy {proxy} refused: {words}{_advice(answer.status_code)}")


def _advice(status: int) -> str:
    if status == 407:
        return "; check the user and the password in broker.proxy"
    if status == 403:
        return "; its rules do not allow the broker's host or port"
    return ""


def _connect_socks(opening: Opening, proxy: Proxy, host: str, port: int) -> None:
    """RFC 1928."""
    methods = [_NO_AUTHENTICATION, *([_USER_PASSWORD] if proxy.user else [])]
    opening.send(bytes([_VERSION, len(methods), *methods]))
    version, method = opening.receive_exactly(2)
    if version != _VERSION:
        raise TransportError(f"the proxy {proxy} does not speak SOCKS 5")
    if method == _USER_PASSWORD and proxy.user:
        user, password = proxy.user.encode(), proxy.password.encode()
        opening.send(
            bytes([_USER_PASSWORD_VERSION, len(user)]) + user + bytes([len(password)]) + password
        )
        _, status = opening.receive_exactly(2)
        if status:
            raise TransportError(
                f"the proxy {proxy} refused the user or the password in broker.proxy"
            )
    elif method != _NO_AUTHENTICATION:
        need = "another way to log in" if proxy.user else "a user and a password"
        raise TransportError(f"the proxy {proxy} asks for {need}; see broker.proxy")
    opening.send(bytes([_VERSION, _CONNECT, 0]) + _socks_address(host) + struct.pack("!H", port))
    _, reply, _, kind = opening.receive_exactly(4)
    if reply:
        words = _REPLIES.get(reply, f"reply {reply}")
        raise TransportError(f"the proxy {proxy} refused: {words}")
    # The address that it bound is of no use to us, but it has to be read.
    sizes = {_IPV4: 4, _IPV6: 16}
    opening.receive_exactly((sizes.get(kind) or opening.receive_exactly(1)[0]) + 2)


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
