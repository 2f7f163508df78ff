from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest
import zstandard

from nexus_agent.protocol import DICTIONARY, SegmentError
from nexus_agent.protocol.compression import compress, decompress

LINE = (
    b'{"specversion":"1.0","id":"1/telemetry/7","source":"/bay-1/obd","type":"telemetry.pid",'
    b'"time":"2026-11-23T08:00:00.000000Z","mono":"1.000000","boot":"0c5c","synced":true,"data":1}'
)


def foreign(number: int) -> zstandard.ZstdCompressionDict:
    samples: list[bytes | bytearray | memoryview] = [LINE + b"%d" % n for n in range(2000)]
    return zstandard.train_dictionary(1024, samples, dict_id=number)


def test_the_dictionary_is_the_one_that_frames_out_there_were_written_with() -> None:
    data = files("nexus_agent.protocol").joinpath(f"dictionary-{DICTIONARY}.zdict").read_bytes()
    assert zstandard.ZstdCompressionDict(data).dict_id() == DICTIONARY
    # Were this to change, nothing that a box has on its disk could be read any more.
    known = "462b798775fe6c9e1fc853fa2a7663eafb036dc4fee68768fba2734f6c0ec76f"
    assert hashlib.sha256(data).hexdigest() == known


def test_a_lone_event_takes_the_dictionary_and_half_the_bytes() -> None:
    frame = compress(LINE)
    assert zstandard.get_frame_parameters(frame).dict_id == DICTIONARY
    assert len(frame) < len(zstandard.compress(LINE)) / 2
    assert decompress(frame) == LINE


def test_many_events_need_no_dictionary() -> None:
    lines = b"\n".join([LINE] * 200)
    frame = compress(lines)
    assert zstandard.get_frame_parameters(frame).dict_id == 0
    assert decompress(frame) == lines


def test_frames_with_and_without_a_dictionary_are_read_in_a_row() -> None:
    assert decompress(compress(LINE) + zstandard.compress(b"\n") + compress(LINE)) == (
        LINE + b"\n" + LINE
    )


def test_a_frame_of_another_dictionary_says_which_one_it_needs() -> None:
    frame = zstandard.ZstdCompressor(dict_data=foreign(40_000)).compress(LINE)
    with pytest.raises(SegmentError, match="needs dictionary 40000, and only 32768 is known"):
        decompress(frame)


def test_a_frame_of_another_dictionary_behind_a_known_one_is_refused() -> None:
    frame = zstandard.ZstdCompressor(dict_data=foreign(40_000)).compress(LINE)
    with pytest.raises(SegmentError, match="not zstd"):
        decompress(compress(LINE) + frame)
