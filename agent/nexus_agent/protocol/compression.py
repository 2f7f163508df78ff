"""zstd frames (RFC 8878) of JSON lines, and the dictionary that small ones are written with.

A frame says which dictionary it needs. One that has been written with once has to be known for
ever: to write with a better one, add it under a number of its own and have readers know both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import zstandard

from nexus_agent.protocol.names import SegmentError

MAX_SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""Largest decompressed segment that is read: a hostile or damaged one cannot exhaust memory."""
DICTIONARY: Final = 0x8000
"""The number of the dictionary, made by `nexus_demo.dictionary`: the lowest that nobody reserves
(RFC 8878 section 3.1.1.1.3). It takes two bytes in a frame."""

_SMALL: Final = 16 * 1024
"""Bytes of lines below which the dictionary saves more than a byte an event."""
_LEVEL: Final = 3
_MAX_WINDOW: Final = 8 * 1024 * 1024
_READ_BYTES: Final = 256 * 1024


def compress(lines: bytes) -> bytes:
    """One frame."""
    if len(lines) > _SMALL:
        return zstandard.ZstdCompressor(level=_LEVEL).compress(lines)
    return zstandard.ZstdCompressor(level=_LEVEL, dict_data=_dictionary()).compress(lines)


def decompress(payload: bytes) -> bytes:
    """What all frames of *payload* hold. Raises SegmentError.

    Reads across frames, which python-zstandard's one-shot functions silently do not.
    """
    reader = zstandard.ZstdDecompressor(
        dict_data=_dictionary(), max_window_size=_MAX_WINDOW
    ).stream_reader(payload, read_across_frames=True)
    parts: list[bytes] = []
    size = 0
    try:
        # Asked for at once, the largest that is allowed is allocated for the smallest.
        while size <= MAX_SEGMENT_BYTES and (part := reader.read(_READ_BYTES)):
            parts.append(part)
            size += len(part)
    except zstandard.ZstdError as error:
        raise SegmentError(_reason(payload, error)) from None
    if size > MAX_SEGMENT_BYTES:
        raise SegmentError(f"payload is larger than {MAX_SEGMENT_BYTES} bytes when decompressed")
    return b"".join(parts)


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    data = Path(__file__).with_name(f"dictionary-{DICTIONARY}.zdict").read_bytes()
    dictionary = zstandard.ZstdCompressionDict(data)
    dictionary.precompute_compress(level=_LEVEL)
    return dictionary


def _reason(payload: bytes, error: zstandard.ZstdError) -> str:
    try:
        needed = zstandard.get_frame_parameters(payload).dict_id
    except zstandard.ZstdError:
        needed = 0
    if needed not in (0, DICTIONARY):
        return f"payload needs dictionary {needed}, and only {DICTIONARY} is known here"
    return f"payload is not zstd: {error}"
