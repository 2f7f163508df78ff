"""Data identifiers by which a control unit names itself (ISO 14229-1, table C.1)."""

from __future__ import annotations

import re
from typing import Final

from nexus_agent.plugin import Quality, catalogue
from nexus_plugins.uds.reply import Reply

Identifier = catalogue.vehicle.Identifier

NAMES: Final = {
    0xF180: "boot_software",
    0xF181: "application_software",
    0xF187: "spare_part_number",
    0xF188: "ecu_software_number",
    0xF189: "ecu_software_version",
    0xF18A: "system_supplier",
    0xF18B: "manufacturing_date",
    0xF18C: "serial_number",
    0xF191: "ecu_hardware_number",
    0xF192: "supplier_hardware_number",
    0xF193: "supplier_hardware_version",
    0xF194: "supplier_software_number",
    0xF195: "supplier_software_version",
    0xF197: "system_name",
}
VIN: Final = 0xF190
SYSTEM_NAME: Final = 0xF197

_PADDING: Final = b"\0 \xff"
_TEXT: Final = re.compile(rb"[!-~][ -~]*")
_VIN: Final = re.compile(rb"[A-HJ-NPR-Z0-9]{17}")
"""ISO 3779: 17 characters without I, O and Q."""


def request(did: int) -> bytes:
    """The question for *did* (ReadDataByIdentifier)."""
    return b"\x22" + did.to_bytes(2, "big")


def name_of(did: int) -> str:
    return NAMES.get(did, f"did_{did:04x}")


def text_of(data: bytes) -> str:
    """Text where the bytes are ASCII but for what fills them up at the end, else hexadecimal."""
    stripped = data.rstrip(_PADDING)
    return stripped.decode("ascii") if _TEXT.fullmatch(stripped) else data.hex().upper()


def decode(did: int, reply: Reply) -> Identifier:
    """What a control unit said to `request(did)`."""
    quality, detail = reply.quality, reply.detail
    if quality is Quality.OK and not reply.data:
        quality, detail = Quality.MALFORMED, "an answer without data"
    return Identifier(
        did=f"{did:04X}",
        name=name_of(did),
        value=text_of(reply.data) if quality is Quality.OK else None,
        unit="1",
        quality=quality,
        detail=detail,
    )


def vin_of(reply: Reply) -> tuple[Quality, str | None]:
    """How well the VIN was told, and the VIN. It is personal data: it goes to nobody else."""
    if reply.quality is not Quality.OK:
        return reply.quality, None
    number = reply.data.rstrip(_PADDING)
    if not _VIN.fullmatch(number):
        return Quality.MALFORMED, None
    return Quality.OK, number.decode("ascii")
