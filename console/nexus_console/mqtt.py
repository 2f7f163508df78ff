"""The console's session with the broker: MQTT 5 over TLS, in a thread of its own.

Messages go into the inbox and are acknowledged to the broker by whoever has committed them
(`manual_ack`). A `Session` is one connection with a client object of its own, so that a message's
identifier can never be acknowledged on a later connection.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import ssl
import threading
import time
from typing import Any, Final, Literal

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from nexus_agent.protocol import ALL_DATA, ALL_PRESENCE
from nexus_agent.transport import Dialer, dial_with, ping_overdue
from nexus_console.config import BrokerSettings
from nexus_console.ingest import Inbox, now_ns
from nexus_console.intake import Inbound

State = Literal["connecting", "connected", "waiting", "denied", "stopped"]

RECEIVE_MAXIMUM: Final = 500
"""Messages that the broker may have under way to us, not yet acknowledged."""
HANDSHAKE_S: Final = 10.0
"""From the open connection to the last SUBACK."""
TURN_S: Final = 0.5
"""`ping_overdue` wants to be asked so often."""
LONGEST_WAIT_S: Final = 128.0
STABLE_S: Final = 10.0
"""A connection that has lasted so long starts the backoff afresh."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_random = secrets.SystemRandom()


class LinkError(Exception):
    """The broker refused or let go; the message says why, in its own words where it gave any."""


class DeniedError(LinkError):
    """The broker does not let this console in or listen: its certificate or rules are wrong."""


class Session:
    """One connection. Its thread is the one that calls `open` and `serve`."""

    def __init__(self, settings: BrokerSettings, tls: ssl.SSLContext, inbox: Inbox) -> None:
        self._settings, self._inbox = settings, inbox
        self._connected = False
        self._subscribed = False
        self._closing = False
        self._failure: LinkError | None = None
        self._subscribing: int | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        self._dialer = Dialer(settings, tls)
        dial_with(client, self._dialer)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        # With this callback paho leaves all writing to our loop, whatever thread publishes.
        client.on_socket_register_write = self._on_want_write

    def open(self) -> None:
        """Connect and subscribe. Raises LinkError or OSError."""
        properties = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=self._settings.session_expiry_s,
            ReceiveMaximum=RECEIVE_MAXIMUM,
        )
        self._client.connect(
            self._settings.host,
            self._settings.port,
            keepalive=self._settings.keepalive_s,
            clean_start=False,
            properties=properties,
        )
        deadline = time.monotonic() + HANDSHAKE_S
        while not self._subscribed and not self._closing:
            if time.monotonic() > deadline:
                raise LinkError(f"no answer to CONNECT or SUBSCRIBE within {HANDSHAKE_S:g} s")
            self._turn(0.1)

    def serve(self) -> None:
        """Read and write until `close` or until the connection ends (LinkError)."""
        while not self._closing:
            self._turn(TURN_S)
            if ping_overdue(self._client):
                raise LinkError("the line is dead: the broker does not answer a ping")
        self._client.disconnect()
        self._client.loop_write()

    def close(self) -> None:
        """Let `open` or `serve` end. From any thread."""
        self._closing = True
        if not self._connected:
            self._dialer.abort()
        self._wake()

    def release(self) -> None:
        """Give back what the session holds. Only its own thread may, at the end."""
        self._connected = False
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        self._wake_read.close()
        self._wake_write.close()

    def acknowledge(self, mid: int, qos: int) -> None:
        """PUBACK, unless the connection that the message came by is gone. From any thread."""
        if self._connected:
            self._client.ack(mid, qos)

    def publish(self, topic: str, payload: bytes, expiry_s: int | None = None) -> bool:
        """Hand a QoS 1 message over; False if there is no connection. From any thread."""
        if not self._connected:
            return False
        expiry = {} if expiry_s is None else {"MessageExpiryInterval": expiry_s}
        properties = _properties(PacketTypes.PUBLISH, **expiry)
        info = self._client.publish(topic, payload, qos=1, properties=properties)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _turn(self, timeout: float) -> None:
        """Wait for the socket or a wake-up, then read, write and keep alive once."""
        sock = self._client.socket()
        if self._failure is not None or sock is None:
            raise self._failure or LinkError("the connection was lost")
        # TLS and WebSocket may hold bytes that the kernel does not show.
        pending = bool(sock.pending())  # type: ignore[attr-defined]  # what a Dialer opens has it
        wanted = selectors.EVENT_READ
        if self._client.want_write():
            wanted |= selectors.EVENT_WRITE
        with selectors.PollSelector() as selector:
            selector.register(sock, wanted)
            selector.register(self._wake_read, selectors.EVENT_READ)
            ready = {key.fd: mask for key, mask in selector.select(0 if pending else timeout)}
        if self._wake_read.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)
        if pending or ready.get(sock.fileno(), 0) & selectors.EVENT_READ:
            self._client.loop_read()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full is awake enough, closed is gone
            self._wake_write.send(b"\0")

    def _on_want_write(self, _client: Client, _userdata: Any, _sock: Any) -> None:
        self._wake()

    def _on_connect(
        self,
        client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            self._failure = DeniedError(f"the broker refused the connection: {code}")
            return
        # Messages of the kept session may come before the SUBACK, and want their PUBACK.
        self._connected = True
        options = SubscribeOptions(qos=1)
        _, self._subscribing = client.subscribe([(ALL_PRESENCE, options), (ALL_DATA, options)])

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        mid: int,
        codes: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [code for code in codes if code.is_failure]
        if refused:
            self._failure = DeniedError(f"the broker refused a subscription: {refused[0]}")
        elif mid == self._subscribing:
            self._subscribed = True

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._connected = False
        if self._failure is None:
            self._failure = LinkError(f"the connection ended: {code}")

    def _on_publish(
        self,
        _client: Client,
        _userdata: Any,
        _mid: int,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if code.is_failure:
            _log.error("the broker refused a message of this console", reason=str(code))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "(not UTF-8)"
        mid, qos = message.mid, message.qos
        self._inbox.put(
            Inbound(
                topic=topic,
                payload=bytes(message.payload),
                properties=getattr(message.properties, "UserProperty", []),
                retained=message.retain,
                received=now_ns(),
                done=lambda: self.acknowledge(mid, qos),
            )
        )


class Link:
    """Keeps a session with the broker. `run` is one thread's work."""

    def __init__(self, settings: BrokerSettings, tls: ssl.SSLContext, inbox: Inbox) -> None:
        self._settings, self._tls, self._inbox = settings, tls, inbox
        self._stop = threading.Event()
        self._session: Session | None = None
        self.state: State = "connecting"
        self.error: str | None = None
        self.connections = 0
        """How often a session has come up: who sees it change may say again what matters."""

    def run(self) -> None:
        """Connect, serve and connect again until `stop`."""
        attempt = 0
        while not self._stop.is_set():
            self.state = "connecting"
            began = time.monotonic()
            try:
                self._hold()
            except (LinkError, OSError) as error:
                self.error = str(error) or type(error).__name__
                self.state = "denied" if isinstance(error, DeniedError) else "waiting"
            if self._stop.is_set():
                break
            attempt = 0 if time.monotonic() - began > STABLE_S else attempt + 1
            # Full jitter: a broker that comes back is not met by everybody at once.
            delay = _random.uniform(0, min(LONGEST_WAIT_S, 2.0 ** min(attempt, 7)))
            _log.warning("no broker", reason=self.error, next_try_s=round(delay, 1))
            self._stop.wait(delay)
        self.state = "stopped"

    def stop(self) -> None:
        """Say goodbye and let `run` return. From any thread."""
        self._stop.set()
        session = self._session
        if session is not None:
            session.close()

    def publish(self, topic: str, payload: bytes, expiry_s: int | None = None) -> bool:
        """Hand a QoS 1 message over; False if there is no connection. From any thread."""
        session = self._session
        return session is not None and session.publish(topic, payload, expiry_s)

    def _hold(self) -> None:
        session = Session(self._settings, self._tls, self._inbox)
        try:
            self._session = session
            if self._stop.is_set():  # `stop` may have come too early to find the session
                return
            session.open()
            self.connections += 1
            self.state, self.error = "connected", None
            _log.info("broker connected", broker=self._settings.url)
            if not self._stop.is_set():
                session.serve()
        finally:
            self._session = None
            session.release()


def _properties(packet: int, **values: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho has no types here
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
