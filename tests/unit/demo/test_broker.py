from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from nexus_demo import broker as broker_module
from nexus_demo.broker import Broker, Kind, choose, find_mosquitto
from nexus_demo.certs import Authority
from nexus_demo.waiting import DemoError

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto here")


@pytest.fixture(params=[pytest.param(Kind.MOSQUITTO, marks=needs_mosquitto), Kind.IOTCORE])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path / "broker", Authority(tmp_path / "pki"), request.param)
    await broker.start()
    yield broker
    await broker.stop()
    assert not broker.process.running


def _client(broker: Broker) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1",
        broker.port,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=ssl.create_default_context(cafile=str(broker.ca)),
        timeout=5,
    )


async def _carries(broker: Broker, payload: bytes) -> bool:
    async with asyncio.timeout(10), _client(broker) as client:
        await client.subscribe("nexus/v1/+/up/data/+", qos=1)
        await client.publish("nexus/v1/bay-1/up/data/event", payload, qos=1)
        message = await anext(aiter(client.messages))
        return message.payload == payload


async def test_it_carries_large_payloads(broker: Broker) -> None:
    assert await _carries(broker, bytes(200_000))


async def test_it_comes_back_on_the_same_port_after_a_kill(broker: Broker) -> None:
    port = broker.port
    await broker.kill()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await broker.start()
    assert await _carries(broker, b"after the kill")


async def test_it_comes_back_on_the_same_port_after_a_restart(broker: Broker) -> None:
    pid = broker.process.pid
    await broker.restart()
    assert broker.process.pid != pid
    assert await _carries(broker, b"after the restart")


async def test_it_speaks_tls_only(broker: Broker) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    # CONNECT of MQTT 5 (section 3.1) in the clear: clean start, client id "x".
    writer.write(bytes.fromhex("10 0e 0004 4d515454 05 02 003c 00 0001 78"))
    reply = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(5):
            reply = await reader.read(1)
    assert reply != b"\x20", "a CONNACK (section 3.2) came without TLS"
    writer.close()


async def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", Authority(tmp_path / "pki"), Kind.IOTCORE)
    (tmp_path / "broker" / "rumqttd.toml").write_text("not a configuration")
    with pytest.raises(DemoError, match="broker ended with code"):
        await broker.start()


def test_without_mosquitto_the_embedded_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    assert choose("auto") is Kind.IOTCORE
    with pytest.raises(DemoError, match="no mosquitto"):
        choose("mosquitto")


def test_the_embedded_broker_says_what_it_does_not_do(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", Authority(tmp_path / "pki"), Kind.IOTCORE)
    assert broker.description == (
        "embedded broker (iotcore): no client certificates checked, no access rules, loopback only"
    )
