"""The agent's MQTT client against a broker that breaks off."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, TypeAlias

import aiomqtt
import pytest
import uvloop

from nexus_agent.broker import BrokerAddress
from nexus_agent.sync.client import Client
from nexus_demo.certs import Authority

CONNACK = bytes((0x20, 3, 0, 0, 0))

Complaints: TypeAlias = list[dict[str, Any]]


async def _accept_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer CONNECT, and be gone at the next packet."""
    await reader.read(4096)
    writer.write(CONNACK)
    await reader.read(4096)
    writer.transport.abort()


@pytest.fixture
async def leaving(authority: Authority) -> AsyncIterator[BrokerAddress]:
    """Where a broker breaks off."""
    credentials = authority.server("breaks-off")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(credentials.cert, credentials.key)
    server = await asyncio.start_server(_accept_and_leave, "127.0.0.1", 0, ssl=tls)
    url = f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield BrokerAddress(url=url, ca=authority.ca)
    server.close()


@pytest.fixture
async def complaints() -> Complaints:
    """What the event loop finds wrong."""
    found: Complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: found.append(told))
    return found


async def test_a_line_that_breaks_while_subscribing_is_one_failure(
    leaving: BrokerAddress, complaints: Complaints
) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with Client(leaving, leaving.tls_context(), timeout=0.5) as client:
            await client.subscribe("anything")
    del client
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_what_was_still_to_be_written_is_not_written_to_the_next_socket(
    leaving: BrokerAddress, complaints: Complaints
) -> None:
    """A publish in the very turn of the loop in which the line is found dead."""
    loop = asyncio.get_running_loop()
    client = Client(leaving, leaving.tls_context())
    with suppress(aiomqtt.MqttError):
        async with client:
            connection = client._client.socket()
            assert connection is not None
            number = connection.fileno()
            client._disconnected.set_exception(aiomqtt.MqttError("the line is dead"))
            client._client.publish("anything", b"")
    one, other = socket.socketpair()
    assert number in {one.fileno(), other.fileno()}
    await asyncio.sleep(0)
    assert not loop.remove_writer(number)
    one.close()
    other.close()
    del client
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


NEWS = bytes((0x30, 4, 0, 1)) + b"a" + bytes((0,))
"""A PUBLISH with QoS 0 to the topic `a`."""


def _speak_and_reset(listener: socket.socket, tls: ssl.SSLContext) -> None:
    """Answer CONNECT; at the next packet say a lot, and reset the connection behind it."""
    connection, _ = listener.accept()
    with tls.wrap_socket(connection, server_side=True) as secured:
        secured.recv(4096)
        secured.sendall(CONNACK)
        secured.recv(4096)
        for _ in range(100):
            secured.sendall(NEWS)
        secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_reset_behind_something_unread_is_noticed(authority: Authority) -> None:
    """On uvloop, as the agent runs, and long before a ping would tell."""
    credentials = authority.server("resets")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(credentials.cert, credentials.key)

    async def listen(address: BrokerAddress) -> None:
        async with Client(address, address.tls_context()) as client:
            client._client.publish("a", b"")
            async for _ in client.messages:
                pass

    async def work(listener: socket.socket) -> None:
        url = f"mqtts://127.0.0.1:{listener.getsockname()[1]}"
        speaking = asyncio.to_thread(_speak_and_reset, listener, tls)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(speaking, name="speaking")
            began = asyncio.get_running_loop().time()
            with pytest.raises(aiomqtt.MqttError):
                await listen(BrokerAddress(url=url, ca=authority.ca))
            assert asyncio.get_running_loop().time() - began < 8

    with socket.create_server(("127.0.0.1", 0)) as listener:
        uvloop.run(work(listener))
