"""The agent's MQTT client against a broker that breaks off."""

from __future__ import annotations

import asyncio
import gc
import ssl
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from nexus_agent.broker import BrokerAddress
from nexus_agent.sync.client import Client
from nexus_demo.certs import Authority

CONNACK = bytes((0x20, 3, 0, 0, 0))


async def _accept_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer CONNECT, and be gone at the next packet."""
    await reader.read(4096)
    writer.write(CONNACK)
    await reader.read(4096)
    writer.transport.abort()


async def test_a_line_that_breaks_while_subscribing_is_one_failure(
    authority: Authority, tmp_path: Path
) -> None:
    credentials = authority.server("breaks-off")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(credentials.cert, credentials.key)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    server = await asyncio.start_server(_accept_and_leave, "127.0.0.1", 0, ssl=tls)
    address = BrokerAddress(
        url=f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}", ca=authority.ca
    )
    with pytest.raises(aiomqtt.MqttError):
        async with Client(address, address.tls_context(), timeout=0.5) as client:
            await client.subscribe("anything")
    server.close()
    del client
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
