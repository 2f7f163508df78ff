"""DoIP messages over a connection: whole, or not at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from doipclient.messages import DiagnosticMessage
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.uds import doip_wire
from nexus_plugins.uds.doip_wire import Connection, Unknown
from nexus_plugins.uds.link import LinkError


def patience(until: float) -> float:
    return max(0.0, min(0.1, until - time.monotonic()))


def received(*pieces: bytes) -> Iterator[object]:
    """What is made of bytes that come in these pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours, 2, patience)
        for piece in pieces:
            theirs.sendall(piece)
            while (message := connection.receive(0.0)) is not None:
                yield message


def test_a_message_in_pieces_is_whole() -> None:
    data = doip_wire.pack(2, DiagnosticMessage(0x1000, 0x0E00, b"\x7e\x00"))
    for cut in range(len(data)):
        (message,) = received(data[:cut] or data[:1], data[cut or 1 :])

        assert isinstance(message, DiagnosticMessage)
        assert bytes(message.user_data) == b"\x7e\x00"


def test_several_in_one_piece_are_several() -> None:
    data = doip_wire.pack(2, DiagnosticMessage(0x1000, 0x0E00, b"\x7e\x00"))

    assert len(list(received(data * 3))) == 3


def test_what_is_too_short_or_not_known_is_unknown() -> None:
    short, strange = bytes.fromhex("02FD800100000001FF"), bytes.fromhex("02FD800000000000")

    assert [type(each) for each in received(short, strange)] == [Unknown, Unknown]


def test_a_message_that_never_ends_is_not_waited_for() -> None:
    with pytest.raises(LinkError, match="announces a message of 4294967295 bytes"):
        list(received(bytes.fromhex("02FD8001FFFFFFFF")))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_whatever_comes_is_messages_or_no_doip(pieces: list[bytes]) -> None:
    with suppress(LinkError):
        list(received(*pieces))


@given(st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_no_payload_breaks_the_reading(kind: int, payload: bytes) -> None:
    doip_wire.unpack(kind, payload)
