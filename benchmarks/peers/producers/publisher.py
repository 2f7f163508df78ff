"""A local MQTT client: `python publisher.py PORT` publishes what the bench orders with QoS 1.

It speaks MQTT 3.1.1 on a bare socket, for a client library would be what is measured then. Each
event is a message with what a CloudEvents line of ours says. Its PUBACK has come: accepted. Where
the broker dies, what is left of an order is given up, and the next one finds it again.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

from peers.producers.feed import Load, Order, port

TOPIC: Final = "bench/events"
_CONNECT: Final = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05bench"
"""CONNECT (MQTT 3.1.1 section 3.1): clean session, no keep-alive, client `bench`."""
_PUBLISH_QOS_1: Final = 0x32
_IN_FLIGHT: Final = 2_000
_AT_ONCE: Final = 100
_PUBACK_BYTES: Final = 4
_AGAIN_S: Final = 0.05
_WITHIN_S: Final = 30.0


class BrokerGoneError(Exception):
    """The broker has ended the connection."""


def encoded(events: list[tuple[str, dict[str, object]]]) -> list[bytes]:
    """One PUBLISH packet an event."""
    topic = TOPIC.encode()
    packets = []
    for kind, data in events:
        number = data["n"]
        line = json.dumps(
            {
                "specversion": "1.0",
                "id": f"1/telemetry/{number}",
                "source": "/bench/feed",
                "type": kind,
                "time": "2026-11-23T00:00:00.000000Z",
                "mono": "1.000000",
                "boot": "eebf0257-c1cc-4e29-bf00-bca2699f6e37",
                "synced": True,
                "data": data,
            },
            separators=(",", ":"),
        ).encode()
        packet = struct.pack(">H", len(topic)) + topic
        packet += struct.pack(">H", int(str(number)) % 65_535 + 1) + line
        packets.append(bytes([_PUBLISH_QOS_1]) + _length(len(packet)) + packet)
    return packets


def _length(size: int) -> bytes:
    """A remaining length (MQTT 3.1.1 section 2.2.3)."""
    found = b""
    while size >= 128:
        found += bytes([size % 128 | 128])
        size //= 128
    return found + bytes([size])


class Publisher:
    """One connection to the local broker, and the receipts of what was published over it."""

    def __init__(self, broker: int, bench: socket.socket) -> None:
        self._broker = broker
        self._bench = bench
        self._line: socket.socket | None = None
        self._rest = 0
        self._acked = self._told = self._sent = 0

    def publish(self, order: Order, packets: dict[int, list[bytes]]) -> None:
        """Publish an order. Raises BrokerGoneError or OSError where the broker dies over it."""
        line = self._line = self._line or _connect(self._broker)
        self._acked = self._told = self._sent = order.first
        begin = time.monotonic()
        self._bench.sendall(f"start {begin}\n".encode())
        for due, first, count in order.batches():
            self._wait(line, begin + due)
            batch = packets[first]
            for start in range(0, count, _AT_ONCE):
                piece = batch[start : start + _AT_ONCE]
                while self._sent - self._acked > _IN_FLIGHT:
                    self._receive(line, None)
                line.sendall(b"".join(piece))
                self._sent += len(piece)
                self._receive(line, 0.0)
        while self._acked < self._sent:
            self._receive(line, None)

    def forget(self) -> None:
        """Let go of a connection that is gone."""
        if self._line is not None:
            self._line.close()
        self._line, self._rest = None, 0

    def _wait(self, line: socket.socket, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self._receive(line, left)

    def _receive(self, line: socket.socket, timeout: float | None) -> None:
        """Take the acknowledgements that are there; wait *timeout* seconds for the first."""
        line.settimeout(timeout)
        try:
            data = line.recv(65_536)
        except (BlockingIOError, TimeoutError):
            return
        finally:
            line.settimeout(None)
        if not data:
            raise BrokerGoneError
        whole, self._rest = divmod(self._rest + len(data), _PUBACK_BYTES)
        self._acked += whole
        if self._acked > self._told:
            self._bench.sendall(f"{self._told} {self._acked - 1}\n".encode())
            self._told = self._acked


def _connect(broker: int) -> socket.socket:
    until = time.monotonic() + _WITHIN_S
    while True:
        with contextlib.suppress(OSError):
            line = socket.create_connection(("127.0.0.1", broker))
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line.sendall(_CONNECT)
            if line.recv(_PUBACK_BYTES)[:1] == b"\x20":  # CONNACK
                return line
        if time.monotonic() > until:
            raise BrokerGoneError
        time.sleep(_AGAIN_S)  # noqa: TID251 - there is no loop here


def _packets(load: Load, order: Order) -> Iterator[tuple[int, list[bytes]]]:
    for _, first, count in order.batches():
        yield first, encoded(load.events(first, count))


def main() -> None:
    load = Load()
    with socket.create_connection(("127.0.0.1", port())) as bench, bench.makefile("rb") as orders:
        publisher = Publisher(int(sys.argv[1]), bench)
        for text in orders:
            order = Order.parse(text)
            packets = dict(_packets(load, order))  # made before the clock runs
            try:
                publisher.publish(order, packets)
            except (OSError, BrokerGoneError):
                publisher.forget()


if __name__ == "__main__":
    main()
