"""Cars on python-can's virtual bus: python-uds-server's control units, and some that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import can
import isotp
from uds_server import DidDefinition, DtcDefinition, UdsServer
from uds_server.transport import IsoTpTransport

Frames = Callable[[bytes], Sequence[bytes | can.Message]]
"""The frames that answer a question, or their data; called on a thread of python-can's."""


@contextmanager
def control_unit(
    channel: str,
    request: int,
    *,
    dids: Mapping[int, bytes] = {},
    dtcs: Sequence[DtcDefinition] = (),
    response: int | None = None,
    is_extended: bool = False,
) -> Iterator[UdsServer]:
    """One of python-uds-server's."""
    answer = request + 8 if response is None else response
    mode = isotp.AddressingMode.Normal_29bits if is_extended else isotp.AddressingMode.Normal_11bits
    with can.Bus(interface="virtual", channel=channel) as bus:
        layer = isotp.CanStack(bus, address=isotp.Address(mode, rxid=request, txid=answer))
        server = UdsServer(
            IsoTpTransport(layer),
            dids=[
                DidDefinition(did, len(data), read_callback=lambda data=data: data)
                for did, data in dids.items()
            ],
            dtcs=dtcs,
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def strange_unit(channel: str, request: int, answer: Frames) -> Iterator[list[bytes]]:
    """A control unit that sends whatever frames *answer* says; yields what it was asked."""
    asked: list[bytes] = []
    with can.Bus(interface="virtual", channel=channel) as bus:

        def hear(message: can.Message) -> None:
            if message.arbitration_id != request or message.data[0] >> 4 != 0:
                return
            payload = bytes(message.data[1 : 1 + message.data[0]])
            asked.append(payload)
            for frame in answer(payload):
                if isinstance(frame, can.Message):
                    bus.send(frame)
                    continue
                bus.send(can.Message(arbitration_id=request + 8, data=frame, is_extended_id=False))

        notifier = can.Notifier(bus, [hear], timeout=0.05)
        try:
            yield asked
        finally:
            notifier.stop()


def single(payload: bytes) -> bytes:
    """A message of at most seven bytes as a frame (ISO 15765-2)."""
    return bytes([len(payload)]) + payload.ljust(7, b"\xaa")


def threads() -> set[str]:
    """The names of the threads that there are, but for pools that stay."""
    return {thread.name for thread in threading.enumerate() if "asyncio" not in thread.name}
