"""Several values in one answer: taken apart exactly, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd import answer, batch
from nexus_plugins.obd.answer import Answer, Reply

LENGTHS = {0x04: 1, 0x0C: 2, 0x0D: 1, 0x42: 2}


def heard(*messages: bytes) -> Answer:
    replies = tuple(
        Reply(f"7E{8 + i}", Quality.OK, (message,)) for i, message in enumerate(messages)
    )
    return Answer(replies, Quality.ABSENT, "did not answer")


def test_a_request_names_every_pid() -> None:
    assert batch.request([0x0C, 0x0D, 0x5]) == "010C0D05"


def test_each_value_is_an_answer_of_its_own() -> None:
    parts = batch.split(heard(bytes.fromhex("41 0D 32 0C 1AF8 04 80")), LENGTHS)

    said = {pid: parts[pid].of("7E8").messages for pid in (0x04, 0x0C, 0x0D)}
    assert said == {
        0x04: (b"\x41\x04\x80",),
        0x0C: (b"\x41\x0c\x1a\xf8",),
        0x0D: (b"\x41\x0d\x32",),
    }
    assert parts[0x42].of("7E8").quality is Quality.ABSENT


def test_control_units_stay_apart() -> None:
    parts = batch.split(heard(b"\x41\x0d\x32", b"\x41\x0d\x33\x04\x80"), LENGTHS)

    assert [reply.payload for reply in parts[0x0D].replies] == [b"\x41\x0d\x32", b"\x41\x0d\x33"]
    assert [reply.ecu for reply in parts[0x04].replies] == ["7E9"]


def test_a_refusal_is_one_of_every_value() -> None:
    refused = Reply("7E8", Quality.REFUSED, detail="NRC 0x12", nrc=0x12)
    parts = batch.split(Answer((refused,), Quality.ABSENT, ""), LENGTHS)

    assert {parts[pid].of("7E8") for pid in LENGTHS} == {refused}


VALUES = st.lists(st.sampled_from(sorted(LENGTHS)), min_size=1, unique=True).flatmap(
    lambda pids: st.fixed_dictionaries(
        {pid: st.binary(min_size=LENGTHS[pid], max_size=LENGTHS[pid]) for pid in pids}
    )
)


@given(VALUES)
def test_what_was_put_together_comes_apart(values: dict[int, bytes]) -> None:
    message = b"\x41" + b"".join(bytes([pid]) + data for pid, data in values.items())
    parts = batch.split(heard(message), LENGTHS)

    told = {pid: part.replies[0].payload[2:] for pid, part in parts.items() if part.replies}
    assert told == values


@given(VALUES, st.data())
def test_what_was_cut_short_tells_nothing_of_what_is_missing(
    values: dict[int, bytes], data: st.DataObject
) -> None:
    message = b"\x41" + b"".join(bytes([pid]) + data_ for pid, data_ in values.items())
    cut = message[: data.draw(st.integers(1, len(message) - 1))]
    parts = batch.split(heard(cut), LENGTHS)

    for pid, part in parts.items():
        for reply in part.replies:
            assert reply.quality is Quality.MALFORMED or reply.payload[2:] == values[pid]


@given(st.binary(max_size=40))
def test_any_bytes_come_out_even_or_are_malformed_for_all(data: bytes) -> None:
    parts = batch.split(heard(b"\x41" + data), LENGTHS)

    replies = [part.replies[0] for part in parts.values() if part.replies]
    if any(reply.quality is not Quality.OK for reply in replies):
        assert [reply.quality for reply in replies] == [Quality.MALFORMED] * len(LENGTHS)
    else:
        assert sum(len(reply.payload) - 1 for reply in replies) == len(data)


def test_a_real_answer_in_two_frames_comes_apart() -> None:
    text = "7E8 10 0A 41 0C 1A F8 0D 32 \r7E8 21 05 7B 04 80 AA AA AA \r\r"
    parts = batch.split(answer.parse("010C0D0504", text), {**LENGTHS, 0x05: 1})

    assert parts[0x05].of("7E8").messages == (b"\x41\x05\x7b",)
    assert parts[0x04].of("7E8").messages == (b"\x41\x04\x80",)


def test_one_that_declares_a_byte_too_few_does_not_come_apart() -> None:
    text = "7E8 10 09 41 0C 1A F8 0D 32 \r7E8 21 05 7B 04 80 AA AA AA \r\r"
    parts = batch.split(answer.parse("010C0D0504", text), {**LENGTHS, 0x05: 1})

    assert {part.of("7E8").quality for part in parts.values()} == {Quality.MALFORMED}


def test_an_answer_to_none_of_the_pids_is_to_another_question() -> None:
    assert answer.parse("010C0D", "7E8 03 41 05 7B").of("7E8").quality is Quality.MALFORMED
