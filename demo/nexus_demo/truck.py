"""`python -m nexus_demo.truck DEVICE`: a truck's control units behind a serial CAN adapter.

They are can-j1939's. The engine's coolant is too hot for some seconds of each minute.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import can
import j1939  # type: ignore[import-untyped]

from nexus_demo import slcan

VIN: Final = "WNXTRK4Z8TA000004"
_VIN_PGN: Final = 65260
_NO_CODES_PGNS: Final = (65227, 65231, 64896)
"""Vehicle identification (SAE J1939-71); DM2, DM6 and DM28: previously active, pending and
permanent codes (J1939-73)."""
_MINUTE_S: Final = 60
_HOT_S: Final = 20
_DM1_S: Final = 1.0
_COOLANT: Final = {"spn": 110, "fmi": 0, "oc": 3}
_WHEEL: Final = {"spn": 789, "fmi": 5, "oc": 1}

Codes = Callable[[], tuple[dict[str, int], list[dict[str, int]]]]
"""Lamps and codes, as `j1939.Dm1` wants them."""


class Bus:
    """The truck's end of the line, and the control units on it."""

    def __init__(self, channel: str) -> None:
        self._bus = can.Bus(interface="slcan", channel=channel)
        self._units = j1939.ElectronicControlUnit(send_message=self._send)
        # It has no other door for a bus that is open already.
        self._notifier = can.Notifier(self._bus, self._units._listeners, 0.1)  # noqa: SLF001

    def add(self, address: int, function: int, codes: Codes, answers: dict[int, bytes]) -> None:
        """A control unit that claims *address*, tells *codes* each second, and answers requests."""
        name = j1939.Name(function=function, identity_number=address + 1, manufacturer_code=10)
        unit = self._units.add_ca(name=name, device_address=address)
        unit.start()

        def answer(_source: int, _destination: int, pgn: int) -> None:
            if pgn in answers:
                # To everybody: long ones go as a broadcast (BAM).
                data = list(answers[pgn])
                self._units.send_pgn(0, pgn >> 8 & 0xFF, pgn & 0xFF, 6, address, data)

        def codes_once_claimed(_: Any) -> bool:
            if unit.state != j1939.ControllerApplication.State.NORMAL:
                return True
            j1939.Dm1(unit).start_send(codes, _DM1_S)
            return False

        unit.subscribe_request(answer)
        self._units.add_timer(0.1, codes_once_claimed)

    def close(self) -> None:
        self._notifier.stop()
        self._units.stop()
        self._bus.shutdown()

    def _send(self, identifier: int, extended: bool, data: Any, **_: Any) -> None:
        frame = can.Message(arbitration_id=identifier, is_extended_id=extended, data=bytes(data))
        self._bus.send(frame)


def _engine() -> tuple[dict[str, int], list[dict[str, int]]]:
    hot = time.monotonic() % _MINUTE_S < _HOT_S
    lamps = {"awl": j1939.DtcLamp.ON} if hot else {}
    return lamps, [dict(_COOLANT)] if hot else [{"spn": 0, "fmi": 0, "oc": 0}]


def _brakes() -> tuple[dict[str, int], list[dict[str, int]]]:
    return {"awl": j1939.DtcLamp.ON}, [dict(_WHEEL)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", type=Path)
    device = parser.parse_args().device
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with slcan.line(device) as far:
        bus = Bus(far)
        no_codes = dict.fromkeys(_NO_CODES_PGNS, bytes([0, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF]))
        bus.add(0x00, 0, _engine, {**no_codes, _VIN_PGN: VIN.encode() + b"*"})
        bus.add(0x0B, 9, _brakes, no_codes)
        ended.wait()
        bus.close()


if __name__ == "__main__":
    main()
