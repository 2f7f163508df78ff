"""What control units say of their software, and how often their monitors run.

Source: SAE J1979 section 6.9 (service 09) and appendix G. On CAN one message carries the number of
items and then the items; older buses send messages numbered from 1 with four bytes each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Answer, Reply
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.listing import Listing, ask_listing
from nexus_plugins.obd.vehicle import Vehicle

CALIBRATION_IDS: Final = 0x04
VERIFICATION_NUMBERS: Final = 0x06
SPARK_COUNTERS: Final = 0x08
NAME: Final = 0x0A
COMPRESSION_COUNTERS: Final = 0x0B
_ASKED: Final = (
    CALIBRATION_IDS,
    VERIFICATION_NUMBERS,
    SPARK_COUNTERS,
    NAME,
    COMPRESSION_COUNTERS,
)

_ID_SIZE: Final = 16
_CVN_SIZE: Final = 4
_NAME_SIZE: Final = 20
_WORD: Final = 2
_OLD_PART: Final = 4

_COUNTED: Final = {
    SPARK_COUNTERS: (
        "catalyst_bank_1",
        "catalyst_bank_2",
        "oxygen_sensor_bank_1",
        "oxygen_sensor_bank_2",
        "egr_vvt_system",
        "secondary_air_system",
        "evaporative_system",
        "secondary_oxygen_sensor_bank_1",
        "secondary_oxygen_sensor_bank_2",
        "air_fuel_imbalance_bank_1",
        "air_fuel_imbalance_bank_2",
        "particulate_filter_bank_1",
        "particulate_filter_bank_2",
    ),
    COMPRESSION_COUNTERS: (
        "nmhc_catalyst",
        "nox_scr_catalyst",
        "nox_adsorber",
        "pm_filter",
        "exhaust_gas_sensor",
        "egr_vvt_system",
        "boost_pressure",
        "fuel_system",
    ),
}
"""Monitors by position, two words each: completions and conditions encountered. Before them stand
two words: general conditions and ignition cycles. Later editions have added to the end."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one control unit says of its software; keys as in `calibration.ids`."""

    ecu: str
    name: str | None
    ids: tuple[str, ...]
    quality: Quality
    cvns: tuple[str, ...]
    cvn_quality: Quality
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    name: str
    completions: int
    conditions: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What one control unit says of its monitors' work in use; keys as in `monitor.counters`."""

    ecu: str
    quality: Quality
    detail: str | None = None
    ignition_cycles: int | None = None
    obd_conditions: int | None = None
    counters: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True)
class Information:
    """What service 09 has told beside the VIN, by control unit."""

    calibrations: tuple[Calibration, ...]
    counters: tuple[Counters, ...]

    def calibrations_json(self) -> list[dict[str, Any]]:
        return [asdict(calibration) for calibration in self.calibrations]

    def counters_json(self) -> list[dict[str, Any]]:
        return [asdict(counters) for counters in self.counters]

    def names(self) -> dict[str, str]:
        """Control unit → how it names itself."""
        return {each.ecu: each.name for each in self.calibrations if each.name is not None}


def items_of(reply: Reply, size: int) -> tuple[bytes, ...] | str:
    """The items of *size* bytes in an ok reply, or what is wrong with it."""
    parts = [message[2:] for message in reply.messages]
    if len(parts) == 1 and parts[0] and len(parts[0]) - 1 == parts[0][0] * size:
        body = parts[0][1:]
    elif any(len(part) != 1 + _OLD_PART for part in parts):
        return "the number of items and their bytes disagree"
    elif [part[0] for part in parts] != list(range(1, len(parts) + 1)):
        return "parts of the answer are missing or out of order"
    else:
        body = b"".join(part[1:] for part in parts)
    if not body or len(body) % size:
        return "the number of items and their bytes disagree"
    return tuple(body[i : i + size] for i in range(0, len(body), size))


def _items(reply: Reply, size: int) -> tuple[tuple[bytes, ...], Quality, str | None]:
    if reply.quality is not Quality.OK:
        return (), reply.quality, reply.detail
    items = items_of(reply, size)
    return ((), Quality.MALFORMED, items) if isinstance(items, str) else (items, Quality.OK, None)


def text_of(item: bytes) -> str | None:
    """Printable ASCII without the NULs and blanks that fill it; None if it is none, or empty."""
    text = item.replace(b"\0", b"").decode("ascii", "replace").strip()
    return text if text and text.isascii() and text.isprintable() else None


def calibration(ecu: str, ids: Reply, cvns: Reply, name: Reply) -> Calibration:
    """One control unit's replies to infotypes 04, 06 and 0A."""
    raw, quality, detail = _items(ids, _ID_SIZE)
    texts = tuple(text for item in raw if (text := text_of(item)) is not None)
    if len(texts) != len(raw):
        texts, quality, detail = (), Quality.MALFORMED, "a calibration id is not text"
    numbers, cvn_quality, cvn_detail = _items(cvns, _CVN_SIZE)
    named, _, _ = _items(name, _NAME_SIZE)
    return Calibration(
        ecu,
        text_of(named[0]) if named else None,
        texts,
        quality,
        tuple(number.hex().upper() for number in numbers),
        cvn_quality,
        detail or cvn_detail,
    )


def counters(ecu: str, infotype: int, reply: Reply) -> Counters:
    """One control unit's reply to infotype 08 or 0B."""
    items, quality, detail = _items(reply, _WORD)
    words = [int.from_bytes(item, "big") for item in items]
    if quality is Quality.OK and (len(words) < 2 or len(words) % 2):
        quality, detail = Quality.MALFORMED, f"{len(words)} counters do not make pairs"
    if quality is not Quality.OK:
        return Counters(ecu, quality, detail)
    names = _COUNTED[infotype]
    pairs = list(zip(words[2::2], words[3::2], strict=True))
    return Counters(
        ecu,
        Quality.OK,
        obd_conditions=words[0],
        ignition_cycles=words[1],
        counters=tuple(
            Counter(names[i] if i < len(names) else f"position_{i + 1}", *pair)
            for i, pair in enumerate(pairs)
        ),
    )


async def read(elm: Elm327, vehicle: Vehicle) -> Information:
    """Ask for whatever anybody says that it supports. Raises AdapterError.

    Where no list is told though the service exists (it has told the VIN), each is asked for once.
    """
    listing = await ask_listing(elm, "09", last=0)
    wanted = set(listing.numbers()) if listing.claims or vehicle.vin_ecu is None else set(_ASKED)
    answers: dict[int, Answer] = {
        infotype: await elm.ask(f"09{infotype:02X}") for infotype in _ASKED if infotype in wanted
    }
    said = _Said(listing, answers)
    ecus = sorted({*vehicle.supported, *said.ecus()})
    return Information(
        tuple(
            calibration(
                ecu,
                said.by(ecu, CALIBRATION_IDS),
                said.by(ecu, VERIFICATION_NUMBERS),
                said.by(ecu, NAME),
            )
            for ecu in ecus
        ),
        tuple(_counters(ecu, said) for ecu in ecus),
    )


def _counters(ecu: str, said: _Said) -> Counters:
    """The counters of the kind of ignition that the control unit has."""
    spark = counters(ecu, SPARK_COUNTERS, said.by(ecu, SPARK_COUNTERS))
    if spark.quality is Quality.OK:
        return spark
    compression = counters(ecu, COMPRESSION_COUNTERS, said.by(ecu, COMPRESSION_COUNTERS))
    return spark if compression.quality is Quality.ABSENT else compression


@dataclass(frozen=True, slots=True)
class _Said:
    """The answers to what was asked."""

    listing: Listing
    answers: dict[int, Answer]

    def by(self, ecu: str, infotype: int) -> Reply:
        """What *ecu* said, or why it was not asked."""
        claims = self.listing.claims.get(ecu)
        answer = self.answers.get(infotype)
        if answer is None:
            return self.listing.why_not(ecu)
        reply = answer.of(ecu)
        declined = claims is not None and infotype not in claims
        return self.listing.why_not(ecu) if declined and reply.quality is Quality.ABSENT else reply

    def ecus(self) -> set[str]:
        answers = (self.listing.first, *self.answers.values())
        return {reply.ecu for answer in answers for reply in answer.replies}
