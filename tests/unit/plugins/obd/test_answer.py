"""The answer parser: every form in which an ELM327 prints what control units say."""

from __future__ import annotations

from itertools import chain, zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import MAX_LINES, UNKNOWN_ECU, Answer, parse

# -- printing answers as an adapter does ----------------------------------------------------------


def frames_of(message: bytes, padding: bytes) -> list[bytes]:
    """CAN frames of one message (ISO 15765-2)."""
    if len(message) <= 7:
        frames = [bytes([len(message)]) + message]
    else:
        frames = [bytes([0x10 | len(message) >> 8, len(message) & 0xFF]) + message[:6]]
        rest = [message[i : i + 7] for i in range(6, len(message), 7)]
        frames += [bytes([0x20 | (i + 1) % 16]) + part for i, part in enumerate(rest)]
    return [frame + padding * (8 - len(frame)) for frame in frames]


def with_headers(ecu: str, message: bytes, padding: bytes, *, spaces: bool) -> list[str]:
    blank = " " if spaces else ""
    head = ecu if len(ecu) == 3 else blank.join(ecu[i : i + 2] for i in range(0, 8, 2))
    return [
        head + blank + (frame.hex(" ") if spaces else frame.hex()).upper()
        for frame in frames_of(message, padding)
    ]


def without_headers(message: bytes, padding: bytes, *, spaces: bool) -> list[str]:
    def text(data: bytes) -> str:
        return (data.hex(" ") if spaces else data.hex()).upper()

    if len(message) <= 7:
        return [text(message)]
    parts = [message[:6], *(message[i : i + 7] for i in range(6, len(message), 7))]
    parts[-1] += padding * (7 - len(parts[-1]))
    return [
        f"{len(message):03X}",
        *(f"{i % 16:X}:{' ' if spaces else ''}{text(part)}" for i, part in enumerate(parts)),
    ]


def interleaved(*lists: list[str]) -> list[str]:
    return [line for line in chain.from_iterable(zip_longest(*lists)) if line is not None]


ECUS_11 = st.integers(0x7E8, 0x7EF).map(lambda number: f"{number:03X}")
ECUS_29 = st.integers(0, 255).map(lambda address: f"18DAF1{address:02X}")
BODIES = st.binary(min_size=0, max_size=200)
PADDINGS = st.sampled_from([b"", b"\x00", b"\x55", b"\xaa", b"\xff"])
PREFIXES = st.sampled_from(["", "0902\r", "SEARCHING...\r", "0902\rSEARCHING...", "BUS INIT: OK\r"])


# -- properties -----------------------------------------------------------------------------------


@given(
    messages=st.one_of(
        st.dictionaries(ECUS_11, BODIES, min_size=1, max_size=4),
        st.dictionaries(ECUS_29, BODIES, min_size=1, max_size=4),
    ),
    padding=PADDINGS,
    spaces=st.booleans(),
    prefix=PREFIXES,
)
def test_any_payload_of_any_control_units_survives_printing_with_headers(
    messages: dict[str, bytes], padding: bytes, spaces: bool, prefix: str
) -> None:
    sent = {ecu: b"\x49\x02" + body for ecu, body in messages.items()}
    lines = interleaved(*(with_headers(e, m, padding, spaces=spaces) for e, m in sent.items()))

    answer = parse("0902", prefix + "\r".join(lines) + "\r\r")

    assert {reply.ecu: reply.messages for reply in answer.replies} == {
        ecu: (message,) for ecu, message in sent.items()
    }
    assert answer.otherwise is Quality.ABSENT


@given(body=BODIES, padding=PADDINGS, spaces=st.booleans(), prefix=PREFIXES)
def test_any_payload_survives_printing_without_headers(
    body: bytes, padding: bytes, spaces: bool, prefix: str
) -> None:
    message = b"\x49\x02" + body
    lines = without_headers(message, padding, spaces=spaces)

    answer = parse("0902", prefix + "\r".join(lines) + "\r\r")

    assert [(r.ecu, r.quality, r.messages) for r in answer.replies] == [
        (UNKNOWN_ECU, Quality.OK, (message,))
    ]


@given(
    body=st.binary(min_size=6, max_size=80),
    padding=PADDINGS,
    spaces=st.booleans(),
    headers=st.booleans(),
    ecu=st.one_of(ECUS_11, ECUS_29),
    data=st.data(),
)
def test_a_truncated_multi_frame_answer_is_never_ok(
    body: bytes, padding: bytes, spaces: bool, headers: bool, ecu: str, data: st.DataObject
) -> None:
    message = b"\x49\x02" + body

    def printed(fill: bytes) -> str:
        if headers:
            return "\r".join(with_headers(ecu, message, fill, spaces=spaces))
        return "\r".join(without_headers(message, fill, spaces=spaces))

    cut = data.draw(st.integers(0, len(printed(b"")) - 1))
    answer = parse("0902", printed(padding)[:cut])

    assert all(reply.quality is not Quality.OK for reply in answer.replies)
    assert answer.otherwise is Quality.MALFORMED or answer.replies


@given(
    body=st.binary(min_size=14, max_size=120),
    headers=st.booleans(),
    repeat=st.booleans(),
    data=st.data(),
)
def test_a_missing_or_repeated_frame_is_malformed(
    body: bytes, headers: bool, repeat: bool, data: st.DataObject
) -> None:
    message = b"\x49\x02" + body
    lines = (
        with_headers("7E8", message, b"", spaces=True)
        if headers
        else without_headers(message, b"", spaces=True)
    )
    at = data.draw(st.integers(1, len(lines) - 1))
    lines[at : at + 1] = [lines[at]] * 2 if repeat else []

    answer = parse("0902", "\r".join(lines))

    assert [reply.quality for reply in answer.replies] == [Quality.MALFORMED]


@pytest.mark.parametrize("headers", [True, False])
def test_frames_out_of_order_are_malformed(headers: bool) -> None:
    message = b"\x49\x02\x01" + bytes(range(30))
    if headers:
        first, second, third, *rest = with_headers("7E8", message, b"", spaces=True)
        lines = [first, third, second, *rest]
    else:
        length, zero, one, two, *rest = without_headers(message, b"", spaces=True)
        lines = [length, zero, two, one, *rest]

    answer = parse("0902", "\r".join(lines))

    assert [reply.quality for reply in answer.replies] == [Quality.MALFORMED]


HOSTILE = st.one_of(
    st.text(),
    st.text(alphabet="0123456789ABCDEF :\r\n?.<>7E8"),
    st.lists(
        st.sampled_from(
            [
                "7E8 10 14 49 02 01 31 44 34",
                "7E8 21",
                "18 DA F1 10 03 7F 09 78",
                "014",
                "0: 49 02",
                "1:",
                "7E8",
                "49 02",
                "0902",
                "?",
                "STOPPED",
                "SEARCHING...",
                "NO DATA",
                "<DATA ERROR",
            ]
        )
    ).map("\r".join),
)


@given(request=st.sampled_from(["03", "010C", "0902", "04"]), text=HOSTILE)
def test_whatever_the_text_the_outcome_is_one_of_its_own(request: str, text: str) -> None:
    answer = parse(request, text)

    assert answer.otherwise in {Quality.ABSENT, Quality.MALFORMED}
    for reply in answer.replies:
        assert bool(reply.messages) == (reply.quality is Quality.OK)
        assert (reply.nrc is not None) == (reply.quality is Quality.REFUSED)


# -- single cases ---------------------------------------------------------------------------------


def only(answer: Answer) -> tuple[str, Quality, tuple[bytes, ...]]:
    (reply,) = answer.replies
    return reply.ecu, reply.quality, reply.messages


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ("NO DATA", Quality.ABSENT),
        ("SEARCHING...\rUNABLE TO CONNECT", Quality.ABSENT),
        ("SEARCHING...UNABLE TO CONNECT", Quality.ABSENT),
        ("BUS INIT: ...ERROR", Quality.ABSENT),
        ("CAN ERROR", Quality.ABSENT),
        ("STOPPED", Quality.MALFORMED),
        ("BUFFER FULL", Quality.MALFORMED),
        ("<RX ERROR", Quality.MALFORMED),
        ("?", Quality.MALFORMED),
        ("OK", Quality.MALFORMED),
        ("", Quality.MALFORMED),
        ("010C", Quality.MALFORMED),
        ("7E8 04 41 0D 1A F8 <DATA ERROR", Quality.MALFORMED),
        ("41 0D 20", Quality.MALFORMED),
    ],
)
def test_an_answer_without_any_reply_says_why(text: str, quality: Quality) -> None:
    answer = parse("010C", text + "\r\r")

    assert (answer.replies, answer.otherwise) == ((), quality)
    assert answer.of("7E8").quality is quality


def test_bytes_past_the_declared_length_are_padding() -> None:
    assert only(parse("010C", "7E8 04 41 0C 1A F8 AA AA AA")) == (
        "7E8",
        Quality.OK,
        (bytes.fromhex("410C1AF8"),),
    )


def test_a_negative_response_is_a_refusal_that_names_its_code() -> None:
    (reply,) = parse("010C", "7E8 03 7F 01 22").replies

    assert (reply.quality, reply.nrc) == (Quality.REFUSED, 0x22)
    assert reply.detail == "NRC 0x22, conditions not correct"


def test_one_control_unit_refuses_while_another_answers() -> None:
    answer = parse("03", "7E8 04 43 01 03 01\r7E9 03 7F 03 11")

    assert [(r.ecu, r.quality) for r in answer.replies] == [
        ("7E8", Quality.OK),
        ("7E9", Quality.REFUSED),
    ]


def test_response_pending_gives_way_to_the_answer_that_follows() -> None:
    answer = parse("03", "7E8 03 7F 03 78\r7E8 03 7F 03 78\r7E8 04 43 01 03 01")

    assert only(answer) == ("7E8", Quality.OK, (bytes.fromhex("43010301"),))


def test_response_pending_alone_is_no_answer() -> None:
    assert only(parse("03", "7E8 03 7F 03 78"))[1] is Quality.ABSENT


@pytest.mark.parametrize(
    "text",
    [
        "7E8 04 41 0D 1A F8",
        "7E8 03 7F 09 22",
        "7E8 05 41 0C 1A F8",
        "7E8 30 00 00",
        "7E8 04 41 0C 1A F8\r7E8 04 41 0C 1A F9",
        "7E8 04 41 0C 1A F8 00 00 00 00",
    ],
    ids=["other-pid", "other-refusal", "short", "flow-control", "twice", "nine-bytes"],
)
def test_a_frame_that_cannot_be_the_answer_is_malformed(text: str) -> None:
    assert only(parse("010C", text))[1] is Quality.MALFORMED


def test_noise_beside_a_whole_answer_leaves_it_whole_but_makes_silence_unclear() -> None:
    answer = parse("03", "7E8 04 43 01 03 01\r7E9 1\rBUFFER FULL")

    assert answer.of("7E8").quality is Quality.OK
    assert answer.of("7E9").quality is Quality.MALFORMED


def test_older_buses_print_three_header_bytes_and_a_checksum() -> None:
    header_and_data = bytes.fromhex("486B1043013300000000")
    line = header_and_data + bytes([sum(header_and_data) & 0xFF])

    assert only(parse("03", line.hex(" "))) == ("10", Quality.OK, (header_and_data[3:],))


def test_a_wrong_checksum_on_an_older_bus_is_malformed() -> None:
    answer = parse("03", "48 6B 10 43 01 33 00 00 00 00 00")

    assert (answer.replies, answer.otherwise) == ((), Quality.MALFORMED)


def test_without_headers_messages_of_several_control_units_are_kept_apart() -> None:
    answer = parse("03", "43 01 03 01\r43 01 C1 23")

    assert only(answer) == (
        UNKNOWN_ECU,
        Quality.OK,
        (bytes.fromhex("43010301"), bytes.fromhex("4301C123")),
    )


def test_no_detail_quotes_what_was_received() -> None:
    secret = "1D4GP00R55B123456"
    printed = with_headers("7E8", b"\x49\x02\x01" + secret.encode(), b"", spaces=False)
    answer = parse("0902", "\r".join(printed[:2]))

    assert secret[:6].encode().hex().upper() not in repr(answer).upper()


def test_more_lines_than_any_vehicle_says_are_not_read() -> None:
    found = parse("010C", "7E8 04 41 0C 1A F8\r" * (MAX_LINES + 1))

    assert (found.replies, found.otherwise) == ((), Quality.MALFORMED)
