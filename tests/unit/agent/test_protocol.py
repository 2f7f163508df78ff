"""The wire and disk formats: what is written is read back, and nothing else is."""

from __future__ import annotations

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent import protocol
from nexus_agent.protocol import (
    Ack,
    Command,
    Presence,
    ProtocolError,
    Segment,
    SegmentError,
    Stamp,
    Stream,
    Topic,
    encode_events,
    format_time,
    open_segment,
    pack,
    parse_time,
    parse_up,
    seal,
    unpack,
)

NOW = 1_795_000_000_123_456_000
LINE = (
    b'{"specversion":"1.0","id":"2/event/%d","source":"/a/b","type":"a.b",'
    b'"time":"%b","mono":"1","boot":"b","synced":true%b}'
)
STAMP = Stamp(NOW, 5_000_000_000, "0b1c", synced=True)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def tail(data: object, event_type: str = "host.metrics") -> bytes:
    events = [(event_type, data)]
    return encode_events(device="box-1", source="host", stamp=STAMP, events=events)[0]


def sealed(count: int = 3, first: int = 1, stream: Stream = Stream.EVENT) -> Segment:
    tails = [tail({"n": n}) for n in range(count)]
    return seal(stream=stream, epoch=2, first=first, tails=tails, times=(NOW, NOW + 9))


@given(values=st.lists(json_values, min_size=1, max_size=20), first=st.integers(1, 2**40))
def test_what_is_sealed_is_what_is_opened(values: list[object], first: int) -> None:
    segment = seal(
        stream=Stream.LOG,
        epoch=7,
        first=first,
        tails=[tail(value) for value in values],
        times=(NOW, NOW),
    )
    events = open_segment(segment)
    assert [event.data for event in events] == values
    assert [event.seq for event in events] == list(range(first, first + len(values)))


lines = st.integers(0, 3).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.sampled_from(
            [
                b'1,"synced":"no"',
                b"1},{",
                b"[1",
                b"1]",
                b'"\\u0000"',
                b"[" * 300 + b"]" * 300,
                b"nan",
                b"{ }",
                b"01",
                b'"\xff"',
                b'"\t"',
                b'1,"more":2',
                b"",
            ]
        )
        | json_values.map(orjson.dumps),
        st.sampled_from([b"2026-01-01T00:00:00Z", b"2026-01-01T00:00:00.5Z", b"now"]),
        st.sampled_from([b"a.b", b'a"b', b"a\\u0062", b"\xff", b"a\x01b", b"\xe2\x80\xa8"]),
    )
)


@given(parts=st.lists(lines, min_size=1, max_size=4), first=st.integers(1, 2))
def test_lines_read_in_one_go_are_what_they_are_one_by_one(
    parts: list[tuple[int, bytes, bytes, bytes]], first: int
) -> None:
    """Kind 0 and 1 are as events are encoded; 2 has the keys in another order, 3 more space."""
    whole = []
    for seq, (kind, data, time, event_type) in enumerate(parts, 1):
        line = (LINE % (seq, time, b',"data":' + data)).replace(b"a.b", event_type)
        if kind == 2:
            line = line.replace(b'"specversion":"1.0",', b"").replace(
                b'"synced":true', b'"synced":true,"specversion":"1.0"'
            )
        elif kind == 3:
            line = line.replace(b'"boot":', b'"boot" : ')
        whole.append(line)
    block = b"\n".join(whole)
    try:
        one_by_one = [
            protocol.decode_event(line, epoch=2, stream=Stream.EVENT, seq=seq)
            for seq, line in enumerate(block.split(b"\n"), first)
        ]
    except ProtocolError:
        with pytest.raises(ProtocolError):
            protocol.decode_lines(block, epoch=2, stream=Stream.EVENT, first=first)
        return
    found = protocol.decode_lines(block, epoch=2, stream=Stream.EVENT, first=first)
    assert [line.encode() for line in found.lines] == [event.raw for event in one_by_one]
    assert found.types == [event.type for event in one_by_one]
    assert found.times == [event.time for event in one_by_one]
    assert found.monos == [event.mono for event in one_by_one]
    assert found.clocks == [(event.boot, event.synced) for event in one_by_one]


def test_lines_that_complete_each_other_are_no_events() -> None:
    smuggled = [
        LINE % (1, b"2026-01-01T00:00:00Z", b',"data":1},{"data":[0'),
        LINE % (2, b"2026-01-01T00:00:00Z", b',"data":0]'),
    ]
    with pytest.raises(ProtocolError, match="not JSON"):
        protocol.decode_lines(b"\n".join(smuggled), epoch=2, stream=Stream.EVENT, first=1)


def test_an_event_is_a_cloudevent_with_both_clocks() -> None:
    event = open_segment(sealed(1))[0]
    assert orjson.loads(event.raw) == {
        "specversion": "1.0",
        "id": "2/event/1",
        "source": "/box-1/host",
        "type": "host.metrics",
        "time": "2026-11-18T11:06:40.123456Z",
        "mono": "5.000000",
        "boot": "0b1c",
        "synced": True,
        "data": {"n": 0},
    }


@pytest.mark.parametrize("data", [{1, 2}, {"x": object()}, b"bytes"])
def test_data_that_json_cannot_carry_is_refused_when_it_is_encoded(data: object) -> None:
    with pytest.raises(ProtocolError, match=r"host\.metrics"):
        tail(data)


@pytest.mark.parametrize("data", [float("nan"), [1, float("inf")], {"v": (float("-inf"),)}])
def test_a_number_that_json_has_not_is_refused_not_turned_into_null(data: object) -> None:
    with pytest.raises(ProtocolError, match="NaN"):
        tail(data)


def test_an_event_that_is_too_large_is_refused() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        tail("x" * (protocol.MAX_EVENT_BYTES + 1))


@pytest.mark.parametrize("name", ["x", "Upper.case", "a..b", "a.b\n", ".a", "a.b c", ""])
def test_a_type_that_is_not_dotted_words_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        tail({}, name)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_payload_is_found(position: int, bit: int) -> None:
    segment = sealed(20)
    damaged = bytearray(segment.payload)
    damaged[position % len(damaged)] ^= 1 << bit
    with pytest.raises(SegmentError, match="CRC"):
        open_segment(_with(segment, payload=bytes(damaged)))


@pytest.mark.parametrize("field", ["epoch", "first", "last", "count"])
def test_a_header_that_belongs_to_another_payload_is_found(field: str) -> None:
    segment = sealed()
    with pytest.raises(SegmentError, match="CRC"):
        open_segment(_with(segment, **{field: getattr(segment, field) + 1}))


def test_concatenated_frames_are_read_to_the_end() -> None:
    whole = sealed(4)
    lines = b"\n".join(event.raw for event in open_segment(whole))
    half = len(lines) // 2
    payload = zstandard.compress(lines[:half]) + zstandard.compress(lines[half:])
    assert len(open_segment(_resealed(whole, payload))) == 4


def test_a_count_that_the_payload_does_not_hold_is_found() -> None:
    short = sealed(3)
    with pytest.raises(SegmentError, match="3 events, declared 4"):
        open_segment(_resealed(_with(short, last=short.last + 1, count=4), short.payload))


def test_a_payload_that_grows_without_end_is_refused() -> None:
    bomb = zstandard.compress(b"\n" * (protocol.MAX_SEGMENT_BYTES + 1))
    with pytest.raises(SegmentError, match="larger"):
        open_segment(_resealed(sealed(), bomb))


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"specversion":"0.3"}',
        LINE % (9, b"2026-01-01T00:00:00Z", b',"data":1'),
        LINE % (1, b"yesterday", b',"data":1'),
        LINE % (1, b"2026-01-01T00:00:00Z", b""),
    ],
)
def test_a_line_that_is_no_event_of_this_place_spoils_its_segment(line: bytes) -> None:
    one = sealed(1)
    with pytest.raises(ProtocolError):
        open_segment(_resealed(one, zstandard.compress(line)))


def test_a_message_carries_segments_as_they_are() -> None:
    segments = [sealed(3, 1), sealed(2, 4)]
    properties, payload = pack(segments)
    assert unpack(Stream.EVENT, properties, payload) == [
        _with(segment, first_time=NOW, last_time=NOW) for segment in segments
    ]


@given(
    properties=st.lists(
        st.tuples(
            st.sampled_from(["encoding", "epoch", "segment", "other"]),
            st.text(max_size=40)
            | st.just("zstd")
            | st.from_regex(r"\d+-\d+ \d+ \d+ [0-9a-f]{8} \S+ \S+"),
        ),
        max_size=4,
    ),
    payload=st.binary(max_size=50),
)
def test_a_message_of_garbage_is_a_protocol_error(
    properties: list[tuple[str, str]], payload: bytes
) -> None:
    with pytest.raises(ProtocolError):
        unpack(Stream.EVENT, properties, payload)


@given(moment=st.integers(0, 253_402_300_799_999_999))
def test_times_survive_the_wire_to_the_microsecond(moment: int) -> None:
    assert parse_time(format_time(moment * 1000)) == moment * 1000


@pytest.mark.parametrize("text", ["", "now", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_a_time_that_is_not_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_time(text)


def test_topics_lead_back_to_their_device() -> None:
    topic = Topic("box-1")
    assert parse_up(topic.presence) == ("box-1", "presence")
    assert parse_up(topic.data(Stream.LOG)) == ("box-1", Stream.LOG)


@pytest.mark.parametrize(
    "topic", ["", "nexus/v1", "nexus/v1/box/up/data/else", "nexus/v1/UP/up/presence", "a/b/c"]
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(ProtocolError):
        parse_up(topic)


@pytest.mark.parametrize("device", ["", "console", "Box", "a" * 64, "a/b", "a+", "ä", "box\n"])
def test_names_that_cannot_be_a_device_are_refused(device: str) -> None:
    with pytest.raises(ProtocolError):
        Topic(device)


@pytest.mark.parametrize("name", ["scan", "Obd.scan", "! obd.scan", "obd.scan now", "obd.scan\n"])
def test_a_command_that_is_not_dotted_words_is_refused(name: str) -> None:
    time = protocol.format_time(0)
    document = {"id": "c-1", "device": "box-1", "counter": 1, "not_before": time, "expires": time}
    assert Command.decode(orjson.dumps({**document, "name": "obd.scan"}))
    with pytest.raises(ProtocolError, match="Command: name"):
        Command.decode(orjson.dumps({**document, "name": name}))


def test_documents_come_back_and_leave_unknown_keys_aside() -> None:
    birth = Presence(online=True, session="s", epoch=1, next={Stream.EVENT: 4})
    newer = orjson.dumps({**orjson.loads(birth.encode()), "from_the_future": 1})
    assert Presence.decode(newer) == birth


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"epoch":0,"stream":"event","seq":1}', b"\xff"])
def test_a_document_that_does_not_fit_names_what_is_wrong(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="Ack"):
        Ack.decode(payload)


def _with(segment: Segment, **changes: object) -> Segment:
    fields = {name: getattr(segment, name) for name in Segment.__dataclass_fields__}
    return Segment(**{**fields, **changes})


def _resealed(segment: Segment, payload: bytes) -> Segment:
    crc = protocol.checksum(
        stream=segment.stream,
        epoch=segment.epoch,
        first=segment.first,
        last=segment.last,
        count=segment.count,
        payload=payload,
    )
    return _with(segment, payload=payload, crc=crc)
