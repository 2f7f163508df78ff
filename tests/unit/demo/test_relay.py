from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from nexus_demo.relay import Relay


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """An open relay to a server that answers in capitals."""
    ends: list[asyncio.StreamWriter] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(1024):
                writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay(server.sockets[0].getsockname()[1])
    await relay.open()
    yield relay
    await relay.cut()
    server.close()
    for end in ends:
        with suppress(ConnectionError):
            await end.wait_closed()


async def _ask(relay: Relay, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(text)
    answer = await reader.readexactly(len(text))
    writer.close()
    return answer


async def test_it_carries_both_ways(relay: Relay) -> None:
    assert await _ask(relay, b"hello") == b"HELLO"
    assert await _ask(relay, b"x" * 300_000) == b"X" * 300_000


async def test_a_cut_ends_what_there_is_and_refuses_the_rest(relay: Relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"hello")
    await reader.readexactly(5)
    await relay.cut()
    assert await _rest(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", relay.port)


async def test_what_was_cut_can_be_opened_again(relay: Relay) -> None:
    await relay.cut()
    await relay.open()
    assert await _ask(relay, b"again") == b"AGAIN"


async def test_a_caller_who_leaves_lets_the_other_side_go(relay: Relay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"last words")
    writer.write_eof()
    assert await _rest(reader) in {b"LAST WORDS", b""}  # a relay carries no half-closed connections
    writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
