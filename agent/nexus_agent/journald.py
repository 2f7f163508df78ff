"""Log lines as journal entries with fields, over journald's native protocol.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. An entry is one datagram of fields; a field is
`NAME=value` and a newline or, where the value has a newline, `NAME`, a newline, the value's length
as a little-endian 64-bit number, the value and a newline.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

SOCKET: Final = Path("/run/systemd/journal/socket")
PRIORITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Syslog's levels, sd-daemon(3)."""
VALUE_BYTES: Final = 32 * 1024
"""A longer value is cut. Linux takes datagrams of about 200 kB unless it is told otherwise."""
SMALL_BYTES: Final = 1024
"""What values are cut to if the socket does not take the entry as a whole."""
WORD_CHARACTERS: Final = 200
"""A value is cut to this within MESSAGE; its own field has more of it."""
_NAME_BYTES: Final = 64
_UNFIT: Final = re.compile(r"[^A-Z0-9_]")
_OTHERWISE: Final = {"event", "level", "logger", "exception", "timestamp"}
"""Keys of a log line that have fields of another name; journald stamps entries itself."""

Fields = Mapping[str, str]


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether *descriptor* is the journal's stream that `$JOURNAL_STREAM` names (systemd.exec(5)).

    A child that was given another stderr inherits the variable all the same.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def fields_of(line: Mapping[str, Any], identifier: str) -> dict[str, str]:
    """The fields of a structlog line: MESSAGE for people, each key as NEXUS_<KEY> for filters."""
    told = {key: _text(value) for key, value in line.items() if key not in _OTHERWISE}
    message = " ".join([_text(line["event"]), *(f"{k}={_word(v)}" for k, v in told.items())])
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(PRIORITIES.get(line.get("level", ""), PRIORITIES["info"])),
        "SYSLOG_IDENTIFIER": identifier,
        "LOGGER": _text(line.get("logger", "")),
        "NEXUS_EVENT": _text(line["event"]),
    }
    if "exception" in line:
        fields["NEXUS_TRACEBACK"] = _text(line["exception"])
    for key, value in told.items():
        fields.setdefault(_UNFIT.sub("_", f"NEXUS_{key.upper()}")[:_NAME_BYTES], value)
    return fields


def encode(fields: Fields, value_bytes: int = VALUE_BYTES) -> bytes:
    """One entry as a datagram; each value longer than *value_bytes* is cut and says so."""
    parts: list[bytes] = []
    for name, text in fields.items():
        value = _cut(text.encode("utf-8", "replace"), value_bytes)
        if b"\n" in value:
            parts.append(b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value))
        else:
            parts.append(b"%b=%b\n" % (name.encode(), value))
    return b"".join(parts)


def _cut(value: bytes, limit: int) -> bytes:
    if len(value) <= limit:
        return value
    kept = value[:limit].decode("utf-8", "ignore")
    return f"{kept}… ({len(value)} bytes, cut)".encode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _word(text: str) -> str:
    """*text* as MESSAGE has it: short, and in quotes where one could not see its end."""
    text = text if len(text) <= WORD_CHARACTERS else f"{text[:WORD_CHARACTERS]}…"
    return text if text and not re.search(r"\s", text) else json.dumps(text, ensure_ascii=False)


class JournalHandler(logging.Handler):
    """Sends each record to the journal; one that it does not take goes to `otherwise` as JSON.

    The handler's formatter has to give a structlog line as JSON. It neither waits nor raises.
    """

    def __init__(self, identifier: str, path: Path, otherwise: Callable[[str], None]) -> None:
        super().__init__()
        self._identifier = identifier
        self._address = str(path)
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if not self._send(fields_of(json.loads(text), self._identifier)):
                self._otherwise(text)
        except Exception:  # noqa: BLE001 - as in logging's own handlers: a log line ends nothing
            self.handleError(record)

    def _send(self, fields: Fields) -> bool:
        for value_bytes in (VALUE_BYTES, SMALL_BYTES):
            try:
                self._socket.sendto(encode(fields, value_bytes), self._address)
            except OSError:
                continue
            return True
        return False

    def close(self) -> None:
        self._socket.close()
        super().close()


def write_unless_full(descriptor: int, line: str) -> None:
    """Write *line* to a stream socket as far as it takes it at once; what is left is dropped.

    Who does not read the journal's datagrams does not read this stream, either, and a write that
    waits would stop the event loop.
    """
    with socket.socket(fileno=os.dup(descriptor)) as stream:
        try:
            stream.send(f"{line}\n".encode("utf-8", "replace"), socket.MSG_DONTWAIT)
        except OSError:
            return
