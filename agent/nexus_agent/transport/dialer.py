"""Opens the connection that MQTT runs on, and the one place that hooks it into paho."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Final

from paho.mqtt.client import Client

from nexus_agent.broker import BrokerAddress
from nexus_agent.transport.opening import Opening, TransportError

if TYPE_CHECKING:
    from nexus_agent.transport.websocket import WebSocket

DEADLINE_S: Final = 20.0
"""For name, TCP, proxy, TLS and WebSocket together, except that no name server can be hurried."""
PING_MARGIN_S: Final = 1.0
"""What the clock that asks `ping_overdue` may lose: it asks at least twice a second."""


class Dialer:
    """Opens one connection to the broker; `open` blocks, `abort` ends it from any thread."""

    def __init__(
        self, address: BrokerAddress, tls: ssl.SSLContext, within: float = DEADLINE_S
    ) -> None:
        self._address, self._tls = address, tls
        self._opening = Opening(within)

    def open(self) -> ssl.SSLSocket | WebSocket:
        """Through the proxy, if there is one, to the broker: TLS is between it and us alone.

        Raises TransportError.
        """
        try:
            return self._open(self._opening)
        except OSError as error:
            self._opening.close()
            if isinstance(error, TransportError):
                raise
            raise TransportError(str(error)) from None

    def _open(self, opening: Opening) -> ssl.SSLSocket | WebSocket:
        host, port, path = self._address.host, self._address.port, self._address.path
        proxy = self._address.way()
        if proxy is None:
            opening.connect(host, port, f"{host}:{port}")
        else:
            # Imported where it is used: few boxes need it, and imports are memory.
            from nexus_agent.transport.proxy import pass_through

            opening.connect(proxy.host, proxy.port, f"the proxy {proxy}")
            pass_through(opening, proxy, host, port)
        secured = opening.secure(self._tls, host)
        if path is None:
            return secured
        from nexus_agent.transport.websocket import WebSocket

        return WebSocket(opening, host, port, path)

    def abort(self) -> None:
        """Let `open` fail now. From any thread."""
        self._opening.abort()


def dial_with(client: Client, dialer: Dialer) -> None:
    """Let *client* connect through *dialer*.

    paho 2.1 has no door for a socket of one's own, which is why its version is pinned.
    """
    client._create_socket = dialer.open  # type: ignore[method-assign]  # noqa: SLF001


def ping_overdue(client: Client) -> bool:
    """Whether the broker owes *client* a PINGRESP, so that its silence lasts 1.5 keep-alives.

    paho itself waits another whole keep-alive. MQTT 5.0 section 3.1.2.10 leaves the time to us.
    Ask at least twice a second.
    """
    asked = client._ping_t  # noqa: SLF001
    return asked > 0 and time.monotonic() - asked >= client.keepalive / 2 - PING_MARGIN_S
