"""From the text of one ELM327 answer to what each control unit said. Pure: no I/O, no clock.

Sources: ELM327 data sheet v2.x, "Error Messages and Alerts", "Interpreting Trouble Codes" and
"Multiline Responses"; ISO 15765-2 (frames), ISO 15765-4 (CAN identifiers 7E8 to 7EF and 18DAF1xx),
ISO 14229-1 annex A (negative response codes), SAE J1979 (services).

Nothing here quotes what was received: an answer may hold a VIN.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.plugin import Quality

UNKNOWN_ECU: Final = "unknown"
"""Name of whoever answers through an adapter that keeps headers to itself."""

MAX_LINES: Final = 1000
"""Eight control units with 255 codes each say 600; thousands would keep the event loop too long."""

RESPONSE_PENDING: Final = 0x78
_LIVE: Final = 0x01
"""The one service that takes several PIDs in one request (SAE J1979 section 6.1)."""
_NEGATIVE: Final = 0x7F

NRC: Final = {
    0x10: "general reject",
    0x11: "service not supported",
    0x12: "sub-function not supported",
    0x13: "wrong message length or format",
    0x21: "busy, repeat the request",
    0x22: "conditions not correct",
    0x31: "request out of range",
    0x33: "security access denied",
    RESPONSE_PENDING: "response pending",
    0x7E: "sub-function not supported in this session",
    0x7F: "service not supported in this session",
}

# What the adapter itself says instead of data, without blanks, dots and colons.
_STATUS: Final = {
    "NODATA": (Quality.ABSENT, "nobody answered"),
    "UNABLETOCONNECT": (Quality.ABSENT, "the adapter finds no vehicle"),
    "NOTCONNECTED": (Quality.ABSENT, "the adapter finds no vehicle"),  # what some clones say
    "ERROR": (Quality.ABSENT, "the adapter cannot initialise the bus"),
    "CANERROR": (Quality.ABSENT, "the adapter cannot use the CAN bus"),
    "BUSERROR": (Quality.ABSENT, "the bus does not react"),
    "BUSBUSY": (Quality.ABSENT, "the bus was too busy to ask"),
    "FBERROR": (Quality.ABSENT, "the adapter's own signal did not come back"),
    "DATAERROR": (Quality.MALFORMED, "data error on the bus"),
    "RXERROR": (Quality.MALFORMED, "receive error on the bus"),
    "BUFFERFULL": (Quality.MALFORMED, "the adapter's buffer was full"),
    "STOPPED": (Quality.MALFORMED, "the adapter was interrupted"),
    "FCRXTIMEOUT": (Quality.MALFORMED, "a control unit broke off its answer"),
    "ACTALERT": (Quality.MALFORMED, "the adapter is about to sleep"),
    "LPALERT": (Quality.MALFORMED, "the adapter is about to sleep"),
    "LVRESET": (Quality.MALFORMED, "the adapter restarted: low voltage"),
    "?": (Quality.MALFORMED, "the adapter did not understand the request"),
}

_PROGRESS: Final = re.compile(r"(?:SEARCHING[. ]*|BUS ?INIT:?[. ]*(?:OK)?)+")
_SPACED: Final = re.compile(r"[0-9A-F]{2,3}(?: [0-9A-F]{2})*")
_HEX: Final = re.compile(r"[0-9A-F]+")
_INDEXED: Final = re.compile(r"([0-9A-F]): ?(.*)")


@dataclass(frozen=True, slots=True)
class Reply:
    """What one control unit said to one request.

    ecu: its CAN identifier (`7E8`, `18DAF110`), its address on older buses (`10`), or
    `UNKNOWN_ECU`. messages: whole payloads from the service id on, at least one where quality is
    ok and none elsewhere; several only on older buses and without headers. nrc: where refused.
    """

    ecu: str
    quality: Quality
    messages: tuple[bytes, ...] = field(default=(), repr=False)
    detail: str | None = None
    nrc: int | None = None

    @property
    def payload(self) -> bytes:
        """The first message."""
        return self.messages[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    otherwise and detail: what holds for every control unit that is not among the replies; absent,
    or malformed where something came that cannot be told whose it is.
    """

    replies: tuple[Reply, ...]
    otherwise: Quality
    detail: str

    def of(self, ecu: str) -> Reply:
        """What *ecu* said, or what its silence means."""
        for reply in self.replies:
            if reply.ecu == ecu:
                return reply
        return Reply(ecu, self.otherwise, detail=self.detail)


def describe(nrc: int) -> str:
    """`NRC 0x22, conditions not correct`."""
    name = NRC.get(nrc, "a reason of the maker's own")
    return f"NRC 0x{nrc:02X}, {name}"


def lines_of(text: str, request: str) -> list[str]:
    """The lines of an answer in upper case, without blank ones and without the request's echo."""
    lines = [line for part in re.split(r"[\r\n]", text.upper()) if (line := part.strip())]
    if lines and lines[0].replace(" ", "") == request:
        del lines[0]
    return lines


def parse(request: str, text: str) -> Answer:
    """What *text*, everything up to the adapter's prompt, says to *request*, such as `010C`.

    Never raises, whatever the text.
    """
    lines = lines_of(text, request)
    if len(lines) > MAX_LINES:
        return Answer((), Quality.MALFORMED, "the answer is too long")
    reader = _Reader(request)
    for line in lines:
        reader.take(line)
    return reader.answer()


@dataclass(slots=True)
class _Heard:
    """What was collected of one control unit. trouble: why it cannot be trusted."""

    frames: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    trouble: str | None = None


class _Reader:
    """Sorts the lines of one answer by who sent them."""

    def __init__(self, request: str) -> None:
        asked = bytes.fromhex(request)
        self._service = asked[0]
        self._positive = _positive(asked)
        self._heard: dict[str, _Heard] = {}
        self._can: set[str] = set()
        self._indexed: _Indexed | None = None
        self._absent: str | None = None
        self._malformed: str | None = None
        self._empty = True

    def take(self, line: str) -> None:
        progress = _PROGRESS.match(line)
        rest = line[progress.end() :].strip() if progress else line
        if not rest:
            return
        self._empty = False
        status = _STATUS.get(re.sub(r"[ .:<]", "", rest))
        if status is None:
            self._take_data(rest)
        elif status[0] is Quality.ABSENT:
            self._absent = status[1]
        else:
            self._malformed = status[1]

    def _take_data(self, line: str) -> None:
        indexed = _INDEXED.fullmatch(line)
        digits = _digits(indexed[2] if indexed else line)
        if digits is None or (indexed and len(digits) % 2):
            self._malformed = "a line that is not data"
        elif indexed:
            self._take_indexed(int(indexed[1], 16), bytes.fromhex(digits))
        elif len(digits) == 3:
            self._finish_indexed()
            self._indexed = _Indexed(int(digits, 16))
        elif (frame := _can_frame(digits)) is not None:
            self._can.add(frame[0])
            self._of(frame[0]).frames.append(frame[1])
        elif len(digits) % 2 == 0:
            self._take_bytes(bytes.fromhex(digits))
        else:
            self._malformed = "a line that is not data"

    def _take_indexed(self, index: int, data: bytes) -> None:
        if self._indexed is None:
            self._malformed = "a part of an answer without its beginning"
        else:
            self._indexed.take(index, data)

    def _finish_indexed(self) -> None:
        if self._indexed is not None:
            message = self._indexed.message()
            if message is None:
                self._of(UNKNOWN_ECU).trouble = "frames are missing, repeated or cut short"
            else:
                self._of(UNKNOWN_ECU).messages.append(message)
            self._indexed = None

    def _take_bytes(self, data: bytes) -> None:
        """A message without header, or one of an older bus with header and checksum."""
        if self._fits(data):
            self._of(UNKNOWN_ECU).messages.append(data)
        elif len(data) > 4 and self._fits(data[3:-1]) and data[-1] in _checksums(data[:-1]):
            self._of(f"{data[2]:02X}").messages.append(data[3:-1])
        else:
            self._malformed = "an answer to another request, or no answer at all"

    def _of(self, ecu: str) -> _Heard:
        return self._heard.setdefault(ecu, _Heard())

    def _fits(self, message: bytes) -> bool:
        return message.startswith(self._positive) or self._refusal(message) is not None

    def _refusal(self, message: bytes) -> int | None:
        """The code of a negative response to this request, else None."""
        if len(message) == 3 and message[:2] == bytes([_NEGATIVE, self._service]):
            return message[2]
        return None

    def answer(self) -> Answer:
        self._finish_indexed()
        replies = tuple(self._reply(ecu, heard) for ecu, heard in sorted(self._heard.items()))
        if self._malformed is not None:
            return Answer(replies, Quality.MALFORMED, self._malformed)
        if self._empty:
            return Answer(replies, Quality.MALFORMED, "an empty answer")
        return Answer(replies, Quality.ABSENT, self._absent or "did not answer")

    def _reply(self, ecu: str, heard: _Heard) -> Reply:
        messages = list(heard.messages)
        trouble = heard.trouble
        for message in _assemble(heard.frames):
            if message is None:
                trouble = "frames are missing, repeated or cut short"
            else:
                messages.append(message)
        refusals = [self._refusal(message) for message in messages]
        positive = [message for message in messages if message.startswith(self._positive)]
        final = [nrc for nrc in refusals if nrc not in {None, RESPONSE_PENDING}]
        if trouble is None and not all(self._fits(message) for message in messages):
            trouble = "an answer to another request"
        if trouble is None and ecu in self._can and len(positive) + len(final) > 1:
            trouble = "more than one answer"
        if trouble is not None:
            return Reply(ecu, Quality.MALFORMED, detail=trouble)
        if positive:
            return Reply(ecu, Quality.OK, tuple(positive))
        if final and final[0] is not None:
            return Reply(ecu, Quality.REFUSED, detail=describe(final[0]), nrc=final[0])
        return Reply(ecu, Quality.ABSENT, detail=f"busy until the end ({describe(0x78)})")


class _Indexed:
    """An answer in the form `014`, `0: …`, `1: …` that the adapter prints when headers are off."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._lines: list[bytes] = []
        self._whole = True

    def take(self, index: int, data: bytes) -> None:
        self._whole = self._whole and index == len(self._lines) % 16
        self._lines.append(data)

    def message(self) -> bytes | None:
        return _join(self._length, self._lines) if self._whole else None


def _positive(asked: bytes) -> tuple[bytes, ...]:
    """How a positive response to *asked* begins; that to several PIDs begins with any of them."""
    service = bytes([asked[0] + 0x40])
    if asked[0] == _LIVE and len(asked) > 1:
        return tuple(service + bytes([pid]) for pid in asked[1:])
    return (service + asked[1:2],)


def _digits(line: str) -> str | None:
    """The hex digits of a line with or without blanks between bytes; None if it has others."""
    if _SPACED.fullmatch(line):
        return line.replace(" ", "")
    return line if _HEX.fullmatch(line) else None


def _can_frame(digits: str) -> tuple[str, bytes] | None:
    """Identifier and data of a CAN frame: eleven bits print as three digits, 29 as eight."""
    if len(digits) % 2 and digits.startswith("7") and len(digits) > 3:
        return digits[:3], bytes.fromhex(digits[3:])
    if len(digits) % 2 == 0 and digits.startswith("18DAF1") and len(digits) > 8:
        return digits[:8], bytes.fromhex(digits[8:])
    return None


def _assemble(frames: Iterable[bytes]) -> Iterator[bytes | None]:
    """Messages of one sender's CAN frames (ISO 15765-2 section 9); None for one that is broken.

    The high nibble of the first byte is the kind: 0 single, 1 first, 2 consecutive. What stands
    past the declared length is padding.
    """
    length = 0
    parts: list[bytes] = []
    for frame in frames:
        kind, low = frame[0] >> 4, frame[0] & 0x0F
        if kind == 2 and parts and len(frame) <= 8:
            if low != len(parts) % 16:
                yield None
            parts.append(frame[1:])
            continue
        if parts:
            yield _join(length, parts)
            parts = []
        if kind == 0 and 0 < low < len(frame) <= 8:
            yield frame[1 : 1 + low]
        elif kind == 1 and len(frame) == 8:
            length, parts = low << 8 | frame[1], [frame[2:]]
        else:
            yield None
    if parts:
        yield _join(length, parts)


def _join(length: int, parts: list[bytes]) -> bytes | None:
    """A message of *length* bytes from its six first bytes and its sevens; None if they don't fit.

    Eight bytes are the shortest message that a single frame cannot carry.
    """
    if length < 8 or len(parts) != 1 + length // 7:
        return None
    if len(parts[0]) != 6 or any(len(part) != 7 for part in parts[1:-1]) or len(parts[-1]) > 7:
        return None
    message = b"".join(parts)
    return message[:length] if len(message) >= length else None


def _checksums(data: bytes) -> set[int]:
    """What may close a message on older buses.

    The sum (ISO 9141-2, ISO 14230-2), or the CRC-8 of SAE J1850: polynomial 0x1D, inverted at the
    start and at the end.
    """
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x1D if crc & 0x80 else crc << 1) & 0xFF
    return {sum(data) & 0xFF, crc ^ 0xFF}
