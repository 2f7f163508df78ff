"""aiomqtt's client, taught to say what the broker answered to a publish.

aiomqtt 2.5 returns normally from a publish that the broker denied: MQTT 5 tells of it in the
PUBACK's reason code only (MQTT 5.0 section 3.4.2.1). This subclass is the one place that touches
aiomqtt's inside, which is why its version is pinned.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import aiomqtt
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import CONTENT_TYPE, UserProperties
from nexus_agent.transport import Dialer, dial_with, ping_overdue

PUBACK_TIMEOUT_S: Final = 60.0
"""The last resort: a dead line is found by TCP or by a missing PINGRESP."""
TICK_S: Final = 0.5


class Denied(aiomqtt.MqttError):
    """The broker refused a publish; the message names the topic and the broker's reason."""


class Client(aiomqtt.Client):
    """An MQTT 5 client whose `publish_checked` raises Denied where the broker denies.

    It finds a line dead that has been silent for 1.5 keep-alives. *settings* are aiomqtt's.
    """

    def __init__(self, address: BrokerAddress, tls: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(
            address.host, address.port, protocol=aiomqtt.ProtocolVersion.V5, **settings
        )
        self._dialer = Dialer(address, tls)
        dial_with(self._client, self._dialer)
        self._pubacks: dict[int, asyncio.Future[ReasonCode | None]] = {}

    async def __aenter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._drop)
            undo.callback(self._dialer.abort)
            await super().__aenter__()
            undo.pop_all()
        self._disconnected.add_done_callback(self._give_up)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, tb)
        finally:
            self._drop()

    def _drop(self) -> None:
        """Close the socket that aiomqtt leaves open when a connection breaks or is given up."""
        if self._misc_task is not None:
            self._misc_task.cancel()
        connection = self._client.socket()
        if connection is not None and connection.fileno() >= 0:
            self._loop.remove_reader(connection.fileno())
            self._loop.remove_writer(connection.fileno())
            connection.close()

    async def _misc_loop(self) -> None:
        while self._client.loop_misc() == MQTT_ERR_SUCCESS:
            if ping_overdue(self._client):
                self._lose("the line is dead: the broker does not answer a ping")
            elif self._is_reset():
                self._lose("the connection was reset")
            if self._disconnected.done():
                return
            await asyncio.sleep(TICK_S)

    def _is_reset(self) -> bool:
        """A reset with something unread before it: uvloop shows it once, and nobody sees it."""
        connection = self._client.socket()
        if connection is None or connection.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # errors are always told
        return bool(poll.poll(0))

    def _lose(self, why: str) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(why))

    def _on_socket_register_write(self, client: Any, _userdata: Any, sock: Any) -> None:
        """As aiomqtt's, which would watch the number of a socket that was closed meanwhile: by then
        it may be another's, and call us without end.
        """

        def write() -> None:
            try:
                client.loop_write()
            except (OSError, ValueError) as error:
                self._lose(str(error))

        def register() -> None:
            if sock.fileno() < 0:
                return
            try:
                self._loop.add_writer(sock.fileno(), write)
            except RuntimeError:  # what uvloop says of a connection that was reset
                self._lose("the connection was reset")

        self._loop.call_soon_threadsafe(register)

    def _on_socket_unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            super()._on_socket_unregister_write(client, userdata, sock)

    def _give_up(self, disconnected: asyncio.Future[None]) -> None:
        if not disconnected.cancelled():
            # Who waits for a SUBACK does not look at it, and asyncio would log it as an error.
            disconnected.exception()
        for puback in self._pubacks.values():
            if not puback.done():
                puback.set_result(None)

    def _on_publish(
        self,
        client: Any,
        userdata: Any,
        mid: int,
        reason_code: ReasonCode,
        properties: Properties,
    ) -> None:
        puback = self._pubacks.pop(mid, None)
        if puback is not None and not puback.done():
            puback.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    async def publish_checked(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Publish with QoS 1 and wait for the PUBACK. Raises Denied or MqttError."""
        info = self._client.publish(topic, payload, 1, retain, properties)
        if info.rc != MQTT_ERR_SUCCESS:
            raise aiomqtt.MqttCodeError(info.rc, "Could not publish message")
        puback: asyncio.Future[ReasonCode | None] = asyncio.get_running_loop().create_future()
        # No PUBACK can have been read yet: reading happens in this very loop.
        self._pubacks[info.mid] = puback
        try:
            async with asyncio.timeout(PUBACK_TIMEOUT_S):
                reason = await puback
        except TimeoutError:
            raise aiomqtt.MqttError(
                f"the broker did not acknowledge a publish within {PUBACK_TIMEOUT_S:g} s"
            ) from None
        finally:
            self._pubacks.pop(info.mid, None)
        if reason is None:
            raise aiomqtt.MqttError(str(self._disconnected.exception() or "the session ended"))
        if reason.is_failure:
            raise Denied(f"the broker denies publishing to {topic}: {reason}")


def data_properties(user: UserProperties) -> Properties:
    """MQTT 5 properties of an `up/data` message."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = CONTENT_TYPE
    properties.UserProperty = user
    return properties


def will_properties(delay_s: int) -> Properties:
    """The broker publishes the will only when the box stays away for *delay_s*."""
    properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
    properties.WillDelayInterval = delay_s
    return properties


def connect_properties(session_expiry_s: int) -> Properties:
    """The broker keeps the session, and what is sent down meanwhile, for *session_expiry_s*."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    return properties
