"""A truck whose control units are can-j1939's, on a CAN channel in this process or a slcan line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import can
import j1939  # type: ignore[import-untyped]

from nexus_plugins.j1939.identifier import ACKNOWLEDGEMENT, ADDRESS_CLAIMED, GLOBAL, Identifier

CYCLE_S = 0.1
"""From one DM1 to the next; a second in a real truck."""
NACK = 1


@dataclass
class Unit:
    """One control unit. dtcs: what its DM1 has now, or None where it sends none. answers: what it
    says to requests; what is not there is not supported, and refused unless `mute`.
    """

    address: int
    function: int = 0
    dtcs: list[tuple[int, int, int]] | None = field(default_factory=list)
    lamps: dict[str, int] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)
    mute: bool = False

    def name(self) -> j1939.Name:
        return j1939.Name(
            function=self.function, identity_number=0x100 + self.address, manufacturer_code=10
        )

    def dm1(self) -> tuple[dict[str, int], list[dict[str, int]]]:
        """As `j1939.Dm1` asks for it; it has no code of its own for no fault."""
        codes = self.dtcs or [(0, 0, 0)]
        return dict(self.lamps), [{"spn": s, "fmi": f, "oc": o} for s, f, o in codes]


class Truck:
    """Control units on one bus, started and claimed by `truck`."""

    def __init__(self, bus: can.BusABC) -> None:
        self.bus = bus
        self.ecu = j1939.ElectronicControlUnit(send_message=self._send, max_cmdt_packets=8)
        self.notifier = can.Notifier(bus, self.ecu._listeners, 0.02)

    def _send(self, can_id: int, extended: bool, data: Any, fd_format: bool = False) -> None:
        frame = can.Message(arbitration_id=can_id, is_extended_id=extended, data=bytes(data))
        self.bus.send(frame)

    def add(self, unit: Unit) -> None:
        """Have *unit* claim its address, answer requests and send its DM1."""
        application = self.ecu.add_ca(name=unit.name(), device_address=unit.address)
        application.start()
        application.subscribe_request(
            lambda source, destination, pgn: self._answer(unit, source, destination, pgn)
        )
        if unit.dtcs is not None:
            self.ecu.add_timer(CYCLE_S, lambda _: self._send_dm1(application, unit))

    def _send_dm1(self, application: Any, unit: Unit) -> bool:
        if application.state == j1939.ControllerApplication.State.NORMAL:
            j1939.Dm1(application)._send({"cb": unit.dm1})
        return True

    def _answer(self, unit: Unit, source: int, destination: int, pgn: int) -> None:
        data = unit.answers.get(pgn)
        to_all = destination == GLOBAL
        if data is None:
            if not (unit.mute or to_all):
                refusal = bytes([NACK, 0xFF, 0xFF, 0xFF, source]) + pgn.to_bytes(3, "little")
                self._send(Identifier(ACKNOWLEDGEMENT, unit.address).can_id(), True, refusal)
        elif len(data) <= 8 or to_all:
            self.ecu.send_pgn(
                pgn >> 16, pgn >> 8 & 0xFF, pgn & 0xFF, 6, unit.address, bytearray(data)
            )
        else:
            self._connect(unit.address, source, pgn, data)

    def _connect(self, source: int, destination: int, pgn: int, data: bytes) -> None:
        """Send by RTS and CTS, as SAE J1939-21 asks of answers to one tool. The library's sender
        does that for groups with a destination only, so its session is opened here.
        """
        layer: Any = self.ecu.j1939_dll
        packets = -(-len(data) // 7)
        layer._snd_buffer[layer._buffer_hash(source, destination)] = {
            "pgn": pgn,
            "priority": 7,
            "message_size": len(data),
            "num_packages": packets,
            "data": bytearray(data),
            "state": layer.SendBufferState.WAITING_CTS,
            "deadline": 2**40,
            "src_address": source,
            "dest_address": destination,
            "next_packet_to_send": 0,
            "next_wait_on_cts": 0,
        }
        layer._J1939_21__send_tp_rts(source, destination, 7, pgn, len(data), packets, 8)

    def is_ready(self) -> bool:
        """Whether all have claimed their addresses."""
        normal = j1939.ControllerApplication.State.NORMAL
        return all(application.state == normal for application in self.ecu.j1939_dll._cas)

    def stop(self) -> None:
        self.notifier.stop()
        self.ecu.stop()


@contextmanager
def truck(bus: can.BusABC, *units: Unit) -> Iterator[Truck]:
    """Control units at work; *bus* is shut down at the end."""
    with ExitStack() as undo:
        undo.callback(bus.shutdown)
        found = Truck(bus)
        undo.callback(found.stop)
        for unit in units:
            found.add(unit)
        yield found


class Hand:
    """One's own hand on the bus: sends what a test wants, and keeps what it hears."""

    def __init__(self, channel: str) -> None:
        self.bus = can.Bus(interface="virtual", channel=channel)

    def send(self, identifier: Identifier, data: bytes) -> None:
        self.bus.send(can.Message(arbitration_id=identifier.can_id(), data=data))

    def claim(self, address: int, name: int) -> None:
        self.send(Identifier(ADDRESS_CLAIMED, address), name.to_bytes(8, "little"))

    def heard(self) -> list[tuple[Identifier, bytes]]:
        """What has come since it was asked last."""
        found = []
        while (frame := self.bus.recv(0)) is not None:
            found.append((Identifier.read(frame.arbitration_id), bytes(frame.data)))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.shutdown()
