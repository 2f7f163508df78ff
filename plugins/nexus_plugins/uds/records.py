"""What a control unit keeps of one code: snapshots (19 04) and extended data (19 06)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nexus_agent.plugin import Quality, catalogue
from nexus_plugins.uds.reply import Reply

Record = catalogue.scans.Record
Records = catalogue.scans.Records

SNAPSHOTS: Final = 0x04
"""reportDTCSnapshotRecordByDTCNumber (ISO 14229-1 section 12.3)."""
EXTENDED: Final = 0x06
"""reportDTCExtDataRecordByDTCNumber."""
ALL: Final = 0xFF
"""As a record's number: every one. A record of this number in an event is all that are kept, where
the control unit does not tell them one by one."""
_MOST: Final = 32
"""More records of one code are not taken apart."""

Ask = Callable[[bytes, int], Awaitable[Reply]]
"""Asks one control unit; see `Client.ask`."""


async def read(ask: Ask, function: int, raw: bytes) -> Records:
    """The records of the code *raw*; function: SNAPSHOTS or EXTENDED.

    How long a record is nobody but its maker knows. So after the question for all of them each is
    asked for by its number, and where it ends the next begins.
    """
    whole = await _ask(ask, function, raw, ALL)
    if whole.quality is not Quality.OK:
        return Records(quality=whole.quality, detail=whole.detail)
    rest = whole.data[1:]  # after the status
    if not whole.data:
        return Records(quality=Quality.MALFORMED, detail="an answer without the code's status")
    found: list[Record] = []
    while rest:
        one = await _ask(ask, function, raw, rest[0]) if len(found) < _MOST else None
        if one is None or not _is_next(one, rest):
            everything = _record(function, bytes([ALL]) + whole.data[1:], whole=True)
            return Records(quality=Quality.OK, records=(everything,))
        length = len(one.data) - 1
        found.append(_record(function, rest[:length]))
        rest = rest[length:]
    return Records(quality=Quality.OK, records=tuple(found))


async def _ask(ask: Ask, function: int, raw: bytes, number: int) -> Reply:
    request = bytes([0x19, function]) + raw + bytes([number])
    return await ask(request, 4)


def _is_next(one: Reply, rest: bytes) -> bool:
    """Whether *one*, a status and a record, can be the record that *rest* begins with."""
    if one.quality is not Quality.OK or not 2 <= len(one.data) <= len(rest) + 1:
        return False
    return one.data[1] == rest[0] and rest[0] != ALL


def _record(function: int, data: bytes, *, whole: bool = False) -> Record:
    """data: a record's number and what follows; a snapshot counts its identifiers in between."""
    number, body = data[0], data[1:]
    if function == EXTENDED or whole or not body:
        return Record(number=number, data=body.hex().upper())
    return Record(number=number, identifiers=body[0], data=body[1:].hex().upper())
