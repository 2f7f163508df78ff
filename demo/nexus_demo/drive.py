"""A drive to be replayed: a log of a truck's bus (ASC), and the database of its messages (DBC)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import can

SECONDS: Final = 120
_STEP_S: Final = 0.1
_EEC1: Final = 0x0CF00400
_ET1: Final = 0x18FEEE00
_CCVS1: Final = 0x18FEF100
"""Identifiers of source address 0 with the PGNs 61444, 65262 and 65265 (SAE J1939-71)."""

_DBC: Final = """\
VERSION ""

NS_ :

BS_:

BU_: Engine

BO_ 2364540158 EEC1: 8 Engine
 SG_ EngineSpeed : 24|16@1+ (0.125,0) [0|8031.875] "rpm" Vector__XXX

BO_ 2566844158 ET1: 8 Engine
 SG_ EngineCoolantTemperature : 0|8@1+ (1,-40) [-40|210] "degC" Vector__XXX

BO_ 2566844926 CCVS1: 8 Engine
 SG_ WheelBasedVehicleSpeed : 8|16@1+ (0.00390625,0) [0|250.996] "km/h" Vector__XXX
"""


def write(folder: Path) -> tuple[Path, Path]:
    """Write log and database into *folder*; their paths."""
    folder.mkdir(exist_ok=True)
    dbc, log = folder / "truck.dbc", folder / "drive.asc"
    dbc.write_text(_DBC, "utf-8")
    with can.ASCWriter(log) as writer:
        for step in range(int(SECONDS / _STEP_S)):
            at = step * _STEP_S
            # Two hills on the way to a town and back.
            share = (1 - math.cos(4 * math.pi * at / SECONDS)) / 2
            _put(writer, at, _EEC1, 3, round((600 + 1200 * share) / 0.125), 2)
            if step % 2 == 0:
                _put(writer, at, _CCVS1, 1, round(85 * share * 256), 2)
            if step % 10 == 0:
                _put(writer, at, _ET1, 0, round(40 + min(at, 50)) + 40, 1)
    return log, dbc


def _put(
    writer: can.ASCWriter, at: float, identifier: int, place: int, raw: int, size: int
) -> None:
    """One frame; what it does not tell is all ones: not available."""
    data = bytearray(b"\xff" * 8)
    data[place : place + size] = raw.to_bytes(size, "little")
    writer.on_message_received(
        can.Message(timestamp=at, arbitration_id=identifier, is_extended_id=True, data=data)
    )
