"""Cars as scenarios of an emulated adapter, for tests that talk to it over a real socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def says(request: str, *lines: str, delay_ms: int = 0) -> Entry:
    text = "\r".join(lines) + "\r\r>"
    return {"request": request, "response_chunks": [text], "delay_ms": delay_ms}


def stalls(request: str) -> Entry:
    return {"request": request, "response_chunks": [], "post_action": "stall"}


def breaks_off(request: str, text: str) -> Entry:
    return {"request": request, "response_chunks": [text], "post_action": "disconnect"}


def can(ecu: str, message: bytes, *, padding: bytes = b"") -> list[str]:
    """The lines of one message with headers, on a CAN bus."""
    if len(message) <= 7:
        frames = [bytes([len(message)]) + message]
    else:
        rest = [message[i : i + 7] for i in range(6, len(message), 7)]
        frames = [bytes([0x10 | len(message) >> 8, len(message) & 0xFF]) + message[:6]]
        frames += [bytes([0x20 | (1 + i) & 0x0F]) + part for i, part in enumerate(rest)]
    head = ecu if len(ecu) == 3 else " ".join(ecu[i : i + 2] for i in range(0, 8, 2))
    return [f"{head} {(f + padding * (8 - len(f))).hex(' ').upper()}" for f in frames]


def iso(ecu: int, *messages: str) -> list[str]:
    """The lines of messages, given as hex, with header and checksum, on an ISO 9141-2 bus."""
    lines = [bytes([0x48, 0x6B, ecu]) + bytes.fromhex(message) for message in messages]
    return [(line + bytes([sum(line) & 0xFF])).hex(" ").upper() for line in lines]


def bits(numbers: Iterable[int], base: int = 0) -> bytes:
    """The four bytes that say which numbers above *base* are supported."""
    return sum(1 << (32 - (number - base)) for number in numbers).to_bytes(4, "big")


def supporting(pids: tuple[int, ...]) -> bytes:
    return b"\x41\x00" + bits(pids)


@dataclass(frozen=True, slots=True)
class Emulator:
    port: str
    log: Path
    process: asyncio.subprocess.Process

    def count(self, request: str) -> int:
        """How often *request* was answered, over all connections."""
        return len(re.findall(rf"'{request}' -> ", self.log.read_text()))


StartEmulator = Callable[..., Awaitable[Emulator]]
