"""The link to the broker: connect, say who is here, send and listen, and begin again."""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import aiomqtt
import structlog

from nexus_agent import protocol
from nexus_agent.broker import BrokerAddress
from nexus_agent.clock import Clock
from nexus_agent.protocol import Ack, Presence, ProtocolError, Topic
from nexus_agent.settings import SettingsError
from nexus_agent.store.errors import StoreError
from nexus_agent.sync.backoff import full_jitter
from nexus_agent.sync.client import Client, Denied, connect_properties, will_properties
from nexus_agent.sync.sender import Sender

log = structlog.get_logger("link")

WILL_DELAY_S: Final = 5
SESSION_EXPIRY_S: Final = 86_400
STEADY_S: Final = 10.0
"""A session this long was a success: the backoff begins anew."""
FAREWELL_S: Final = 1.0
ANNOUNCE_REST_S: Final = 1.0
"""A disk that comes and goes must not fill the line with births."""


class LinkState(enum.StrEnum):
    """How the box stands with its broker."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """Between two attempts."""
    DENIED = "denied"
    """The broker is there and refuses: a person has to look at its access rules."""


class Timing(Protocol):
    """The link's settings; `[broker]` has them."""

    @property
    def keepalive_s(self) -> int: ...
    @property
    def presence_interval_s(self) -> int: ...


class Link:
    """Keep `run` running. `farewell` before cancelling it tells the console that we leave."""

    def __init__(
        self,
        address: BrokerAddress,
        timing: Timing,
        topic: Topic,
        clock: Clock,
        sender: Sender,
        birth: Callable[[str], Awaitable[Presence]],
        on_command: Callable[[bytes], None],
    ) -> None:
        self._address = address
        self._timing = timing
        self._topic = topic
        self._session = ""
        self._clock = clock
        self._sender = sender
        self._birth = birth
        self._on_command = on_command
        self._client: Client | None = None
        self._news = asyncio.Event()
        self._leaving = False
        self.state = LinkState.CONNECTING
        self.since = clock.stamp().wall
        self.error = ""
        self.attempt = 0
        self.connects = 0
        self.disconnects = 0
        self.opening = False
        """Whether a thread is connecting, which cannot be interrupted."""

    async def run(self) -> None:
        """Stay connected until cancelled, or until a session ends after `farewell`."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            failure = await self._attempt()
            self._client = None
            # Python 3.11's TaskGroup forgets a cancellation that comes as one of its tasks fails.
            if self._leaving:
                return
            if loop.time() - started >= STEADY_S:
                self.attempt = 0
            self.attempt += 1
            state = LinkState.DENIED if isinstance(failure, Denied) else LinkState.WAITING
            delay = full_jitter(self.attempt)
            self._enter(state, str(failure))
            log.info("link_down", error=str(failure), retry_in_s=round(delay, 1))
            await asyncio.sleep(delay)

    async def _attempt(self) -> Exception:
        """Connect and work until the session ends; return why it did."""
        self._enter(LinkState.CONNECTING, self.error)
        failure: Exception = aiomqtt.MqttError("the session ended")
        try:
            client = await self._make_client()
            self.opening = True
            async with client:
                self.opening = False
                await self._work(client)
        except* (aiomqtt.MqttError, OSError, SettingsError, StoreError, ValueError) as group:
            failure = _first(group)
        self.opening = False
        return failure

    async def _make_client(self) -> Client:
        context = await asyncio.to_thread(self._address.tls_context)
        # New with every connection, so that the will of an old one can never outlive its birth.
        self._session = secrets.token_hex(4)
        will = Presence(online=False, session=self._session)
        return Client(
            self._address,
            context,
            identifier=self._topic.device,
            keepalive=self._timing.keepalive_s,
            clean_start=False,
            properties=connect_properties(SESSION_EXPIRY_S),
            will=aiomqtt.Will(
                self._topic.presence,
                will.encode(),
                qos=1,
                retain=True,
                properties=will_properties(WILL_DELAY_S),
            ),
        )

    async def _work(self, client: Client) -> None:
        await client.subscribe([(self._topic.ack, 1), (self._topic.command, 1)])
        await self._announce(client)
        self._client = client
        self._enter(LinkState.CONNECTED, "")
        log.info("link_up", broker=self._address.url)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(client), name="link:listen")
            group.create_task(self._sender.run(client, self._session), name="link:send")
            group.create_task(self._stay_known(client), name="link:presence")

    async def _announce(self, client: Client) -> None:
        birth = await self._birth(self._session)
        await client.publish_checked(self._topic.presence, birth.encode(), retain=True)

    async def _stay_known(self, client: Client) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.presence_interval_s):
                    await self._news.wait()
            self._news.clear()
            await self._announce(client)
            await asyncio.sleep(ANNOUNCE_REST_S)

    def announce(self) -> None:
        """Introduce the box anew, if it is connected: what its birth says has changed."""
        self._news.set()

    async def _listen(self, client: Client) -> None:
        async for message in client.messages:
            payload = message.payload
            if message.topic.value == self._topic.ack:
                try:
                    renewed = await self._sender.acknowledge(Ack.decode(payload))
                except ProtocolError as error:
                    log.warning("acknowledgement_refused", error=str(error))
                except StoreError as error:
                    # Nothing is released; the console acknowledges again what is sent again.
                    log.warning("acknowledgement_not_stored", error=str(error))
                else:
                    if renewed:
                        self.announce()
            elif message.topic.value == self._topic.command:
                self._on_command(payload)

    async def farewell(self, reason: str) -> None:
        """Tell the console that this is no accident, if there is a connection; begin no other."""
        self._leaving = True
        client = self._client
        if client is None:
            return
        goodbye = Presence(
            online=False,
            session=self._session,
            reason=reason,
            time=protocol.format_time(self._clock.stamp().wall),
        )
        with suppress(aiomqtt.MqttError, TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await client.publish_checked(self._topic.presence, goodbye.encode(), retain=True)

    def _enter(self, state: LinkState, error: str) -> None:
        if state is not self.state:
            self.since = self._clock.stamp().wall
            self.connects += state is LinkState.CONNECTED
            self.disconnects += self.state is LinkState.CONNECTED
        self.state, self.error = state, error


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The most telling leaf: a denial, else the first."""
    leaves: list[Exception] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            leaves.append(_first(error))
        else:
            # aiomqtt's "disconnected" has the reason as its cause.
            leaves.append(
                error.__cause__ if isinstance(error.__cause__, aiomqtt.MqttError) else error
            )
    return next((leaf for leaf in leaves if isinstance(leaf, Denied)), leaves[0])
