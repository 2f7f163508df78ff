"""The VIN is kept out of what only its maker can read."""

from __future__ import annotations

from nexus_agent.plugin import Quality, catalogue
from nexus_plugins.uds.privacy import Veil

VIN = "1HGCM82633A004352"
REF = {"vehicle_ref": "r"}
Record = catalogue.scans.Record
Records = catalogue.scans.Records


def told(veil: Veil, data: bytes) -> str:
    kept = Records(quality=Quality.OK, records=(Record(number=1, data=data.hex().upper()),))
    return veil.records(kept).records[0].data


def values(veil: Veil, *texts: str) -> list[object]:
    identifiers = [
        catalogue.vehicle.Identifier(did="F18C", name="n", value=text, unit="1", quality=Quality.OK)
        for text in texts
    ]
    return [each.value for each in veil.identifiers(identifiers)]


def test_a_record_with_the_vin_loses_its_bytes() -> None:
    veil = Veil([VIN], REF)

    assert told(veil, b"\x01" + VIN.encode() + b"\x02") == ""
    assert told(veil, b"\x01\x02") == "0102"


def test_where_the_shop_allows_it_nothing_is_withheld() -> None:
    assert told(Veil([VIN], {**REF, "vin": VIN}), VIN.encode()) == VIN.encode().hex().upper()


def test_an_identifier_with_the_vin_is_not_told() -> None:
    hexadecimal = (b"\x01" + VIN.encode()).hex().upper()

    assert values(Veil([VIN], REF), f"SN{VIN}", hexadecimal, "06A906032") == ["06A906032"]


def test_where_no_vin_was_told_what_looks_like_one_is_withheld() -> None:
    assert values(Veil([], {}), VIN, "ABC123") == ["ABC123"]
    assert values(Veil(["WVWZZZ1KZAW000123"], REF), VIN) == [VIN], "a serial number of 17 digits"


def test_the_vin_is_in_no_repr() -> None:
    assert VIN not in repr(Veil([VIN], REF))
