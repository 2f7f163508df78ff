"""Keeps the VIN out of bytes that only their maker knows how to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from nexus_agent.plugin import catalogue
from nexus_plugins.uds.records import Record, Records

Identifier = catalogue.vehicle.Identifier

_LIKE_A_VIN: Final = re.compile(r"(?<![A-Z0-9])[A-HJ-NPR-Z0-9]{17}(?![A-Z0-9])")


class Veil:
    """Says what may be told. vins: those that were told; car: what `Context.vehicle` made of one.

    Where the shop does not allow the VIN, what holds one of them is withheld; where none was told,
    what looks like one.
    """

    def __init__(self, vins: Iterable[str], car: Mapping[str, Any]) -> None:
        self._vins = frozenset(vins)
        self._allowed = "vin" in car

    def __repr__(self) -> str:
        return "Veil()"

    def records(self, records: Records) -> Records:
        """The same, without the bytes of those that hold a VIN."""
        if not records.records:
            return records
        return records.model_copy(
            update={"records": tuple(self._record(each) for each in records.records)}
        )

    def identifiers(self, values: Iterable[Identifier]) -> tuple[Identifier, ...]:
        """Those whose value holds no VIN."""
        return tuple(each for each in values if not self._holds(_bytes_of(each.value)))

    def _record(self, record: Record) -> Record:
        if self._holds(bytes.fromhex(record.data)):
            return record.model_copy(update={"data": ""})
        return record

    def _holds(self, data: bytes) -> bool:
        if self._allowed:
            return False
        text = data.decode("latin-1")
        if self._vins:
            return any(vin in text for vin in self._vins)
        return _LIKE_A_VIN.search(text) is not None


def _bytes_of(value: object) -> bytes:
    """A value's bytes, whether it is told as text or as hexadecimal digits."""
    if not isinstance(value, str):
        return b""
    try:
        return value.encode() + b"\0" + bytes.fromhex(value)
    except ValueError:
        return value.encode()
