from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from nexus_demo.certs import Authority, Credentials


def _server_context(authority: Authority, server: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(server.cert, server.key)
    return context


def _client_context(authority: Authority, client: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(client.cert, client.key)
    return context


async def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> object:
    """Who the server saw, after both sides have checked each other."""
    seen: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peercert"))
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname=name
        )
        who = await seen
        writer.close()
        await writer.wait_closed()
    return who


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_strict_contexts_accept_both_sides(tmp_path: Path, name: str) -> None:
    authority = Authority(tmp_path)
    who = await _shake_hands(
        _server_context(authority, authority.server("broker")),
        _client_context(authority, authority.client("bay-1")),
        name,
    )
    assert isinstance(who, dict)
    assert who["subject"] == ((("commonName", "bay-1"),),)


async def test_a_server_of_another_ca_is_refused(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    client = _client_context(ours, ours.client("bay-1"))
    server = _server_context(theirs, theirs.server("broker"))
    with pytest.raises(ssl.SSLCertVerificationError):
        await _shake_hands(server, client, "localhost")


def test_only_their_owner_may_read_the_files(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server("broker")
    authority.client("bay-1")
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    files = ("ca.pem", "broker.pem", "broker.key", "bay-1.pem", "bay-1.key")
    assert modes == dict.fromkeys(files, 0o600)
