"""Who built a vehicle, and where, by the first characters of its VIN.

Regions are those of ISO 3780, with SAE's later assignments of H to China and of 7F to 70 to the
United States. Makers are those of passenger cars and light trucks that NHTSA lists
for these world manufacturer identifiers (49 CFR 565.16; the agency's product information catalog,
vPIC). Few, and only such that one identifier means one make: others have no maker here.
"""

from __future__ import annotations

from typing import Final

NORTH_AMERICA: Final = "North America"

_REGIONS: Final = (
    ("ABC", "Africa"),
    ("HJKLMNPR", "Asia"),
    ("STUVWXYZ", "Europe"),
    ("12345", NORTH_AMERICA),
    ("6", "Oceania"),
    ("89", "South America"),
)

_MAKERS: Final = {
    "Acura": "19U JH4",
    "Alfa Romeo": "ZAR",
    "Aston Martin": "SCF",
    "Audi": "TRU WAU WUA",
    "Bentley": "SCB",
    "BMW": "4US 5UX WBA WBS WBX WBY",
    "Buick": "1G4 2G4",
    "Cadillac": "1G6 1GY",
    "Chevrolet": "1G1 1GC 1GN 2G1 3GN",
    "Citroën": "VF7",
    "Dodge": "1B3 1D4 2B3 2D4",
    "Ferrari": "ZFF",
    "Fiat": "ZFA",
    "Ford": "1FA 1FB 1FD 1FM 1FT 2FA 2FM 3FA WF0",
    "GMC": "1GK 1GT 2GT",
    "Honda": "1HG 2HG 2HK 5FN 5J6 JHL JHM SHH",
    "Hyundai": "5NM 5NP KMH",
    "Infiniti": "JNK",
    "Jaguar": "SAJ",
    "Jeep": "1J4 1J8",
    "Kia": "5XX KNA KND",
    "Lamborghini": "ZHW",
    "Land Rover": "SAL",
    "Lexus": "2T2 JTH JTJ",
    "Lincoln": "1LN 5LM",
    "Maserati": "ZAM",
    "Mazda": "JM1 JM3 JMZ",
    "Mercedes-Benz": "4JG WDB WDC WDD",
    "Mini": "WMW",
    "Mitsubishi": "4A3 4A4 JA3 JA4 JMB",
    "Nissan": "1N4 1N6 3N1 5N1 JN1",
    "Opel": "W0L",
    "Peugeot": "VF3",
    "Pontiac": "1G2 2G2",
    "Porsche": "WP0 WP1",
    "Renault": "VF1",
    "Rolls-Royce": "SCA",
    "Saab": "YS3",
    "SEAT": "VSS",
    "Škoda": "TMB",
    "Subaru": "4S3 4S4 JF1 JF2",
    "Suzuki": "JS2 JS3 TSM",
    "Tesla": "5YJ 7SA LRW XP7",
    "Toyota": "2T1 4T1 4T3 5TD 5TF JTD JTE JTN SB1",
    "Volkswagen": "1VW 3VW WV1 WV2 WVG WVW",
    "Volvo": "YV1 YV4",
}

_MAKER: Final = {wmi: maker for maker, wmis in _MAKERS.items() for wmi in wmis.split()}


def maker_of(wmi: str) -> str | None:
    """The make of the three characters *wmi*, where it is known here."""
    return _MAKER.get(wmi)


def region_of(wmi: str) -> str | None:
    """The region that *wmi* belongs to; None where it is not assigned to any."""
    if wmi[0] == "7":
        return "Oceania" if wmi[1] in "ABCDE" else NORTH_AMERICA
    return next((region for characters, region in _REGIONS if wmi[0] in characters), None)
