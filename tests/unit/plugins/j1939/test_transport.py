from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.j1939 import transport
from nexus_plugins.j1939.identifier import DM1, DM2, GLOBAL, TOLD, TP_CM, TP_DT, Identifier, Message
from nexus_plugins.j1939.transport import Reassembly

US, ENGINE, BRAKES, DASH = 0xF9, 0x00, 0x0B, 0x17
UNWANTED = 0x00FEE3
Frame = tuple[Identifier, bytes]


def le(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def control(kind: int, source: int, destination: int, a: bytes, pgn: int = DM1) -> Frame:
    return Identifier(TP_CM, source, destination, 7), bytes([kind]) + a + le(pgn, 3)


def bam(source: int, size: int, packets: int, pgn: int = DM1) -> Frame:
    return control(32, source, GLOBAL, le(size, 2) + bytes([packets, 0xFF]), pgn)


def rts(source: int, destination: int, size: int, pgn: int = DM1, at_once: int = 0xFF) -> Frame:
    return control(16, source, destination, le(size, 2) + bytes([-(-size // 7), at_once]), pgn)


def cts(source: int, destination: int, count: int, first: int, pgn: int = DM1) -> Frame:
    return control(17, source, destination, bytes([count, first, 0xFF, 0xFF]), pgn)


def abort(source: int, destination: int, reason: int, pgn: int = DM1) -> Frame:
    return control(255, source, destination, bytes([reason, 0xFF, 0xFF, 0xFF]), pgn)


def packet(source: int, destination: int, number: int, data: bytes) -> Frame:
    part = data[(number - 1) * 7 : number * 7]
    return Identifier(TP_DT, source, destination, 7), bytes([number]) + part.ljust(7, b"\xff")


def broadcast(source: int, data: bytes, pgn: int = DM1) -> list[Frame]:
    count = -(-len(data) // 7)
    packets = [packet(source, GLOBAL, n, data) for n in range(1, count + 1)]
    return [bam(source, len(data), count, pgn), *packets]


def take(reassembly: Reassembly, frames: Iterable[Frame], *, at: float = 0.0) -> list[Message]:
    found = (reassembly.take(at, *frame) for frame in frames)
    return [message for message in found if message is not None]


@pytest.fixture
def ours() -> Reassembly:
    reassembly = Reassembly(TOLD)
    reassembly.address = US
    return reassembly


@pytest.fixture
def overheard() -> Reassembly:
    return Reassembly(TOLD)


# -- broadcasts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 14, 15, 1785])
def test_a_broadcast_comes_whole(overheard: Reassembly, size: int) -> None:
    data = bytes(n % 251 for n in range(size))

    assert take(overheard, broadcast(ENGINE, data)) == [Message(DM1, ENGINE, GLOBAL, data)]
    assert not len(overheard)


def test_broadcasts_of_two_control_units_at_once_come_both(overheard: Reassembly) -> None:
    one, other = bytes(range(20)), bytes(range(100, 120))
    frames = zip(broadcast(ENGINE, one), broadcast(BRAKES, other, DM2), strict=True)

    found = take(overheard, (frame for pair in frames for frame in pair))

    assert found == [Message(DM1, ENGINE, GLOBAL, one), Message(DM2, BRAKES, GLOBAL, other)]


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_broadcast_with_a_packet_lost_is_none(overheard: Reassembly, lost: int) -> None:
    frames = broadcast(ENGINE, bytes(range(21)))
    del frames[lost]

    assert take(overheard, frames) == []
    overheard.expire(transport.T1_S)
    assert overheard.interrupted == 1


def test_a_packet_that_comes_twice_does_no_harm(overheard: Reassembly) -> None:
    frames = [frame for frame in broadcast(ENGINE, bytes(range(21))) for _ in range(2)]

    assert len(take(overheard, frames)) == 1


def test_a_packet_out_of_place_ends_a_broadcast(overheard: Reassembly) -> None:
    frames = broadcast(ENGINE, bytes(range(21)))
    frames[2], frames[3] = frames[3], frames[2]

    assert take(overheard, frames) == []
    assert overheard.interrupted == 1


def test_a_broadcast_that_falls_silent_is_given_up_after_t1(overheard: Reassembly) -> None:
    *most, last = broadcast(ENGINE, bytes(range(21)))
    take(overheard, most)

    assert take(overheard, [last], at=transport.T1_S) == []
    assert overheard.interrupted == 1


def test_each_packet_has_its_own_t1(overheard: Reassembly) -> None:
    frames = broadcast(ENGINE, bytes(range(21)))

    found = [m for n, f in enumerate(frames) for m in take(overheard, [f], at=n * 0.7)]

    assert len(found) == 1


def test_a_new_broadcast_ends_the_one_before_even_if_nobody_wants_it(overheard: Reassembly) -> None:
    old, new = broadcast(ENGINE, bytes(21)), broadcast(ENGINE, bytes(21), UNWANTED)

    assert take(overheard, [*old[:3], *new]) == []
    assert overheard.interrupted == 1


@pytest.mark.parametrize(
    "frame",
    [
        bam(ENGINE, 8, 2),
        bam(ENGINE, 1786, 256 - 1),
        bam(ENGINE, 20, 2),
        bam(0xFE, 20, 3),
        rts(ENGINE, GLOBAL, 20),
        control(32, ENGINE, DASH, le(20, 2) + b"\x03\xff"),
        control(99, ENGINE, DASH, bytes(4)),
        (Identifier(TP_CM, ENGINE), bytes(7)),
        (Identifier(TP_DT, ENGINE), b""),
    ],
)
def test_what_cannot_be_is_counted_and_opens_nothing(overheard: Reassembly, frame: Frame) -> None:
    assert take(overheard, [frame]) == []
    assert (overheard.malformed, len(overheard)) == (1, 0)


def test_there_are_never_more_sessions_than_there_is_room_for(overheard: Reassembly) -> None:
    take(overheard, [bam(source, 20, 3) for source in range(100)])

    assert len(overheard) == transport.MAX_SESSIONS
    assert overheard.refused == 100 - transport.MAX_SESSIONS


def test_room_that_was_given_up_is_used_again(overheard: Reassembly) -> None:
    take(overheard, [bam(source, 20, 3) for source in range(transport.MAX_SESSIONS)])

    assert len(take(overheard, broadcast(0x80, bytes(20)), at=1.0)) == 1


def test_a_gap_ends_all_that_is_on_its_way(overheard: Reassembly) -> None:
    *most, last = broadcast(ENGINE, bytes(21))
    take(overheard, most)
    overheard.reset()

    assert take(overheard, [last]) == []
    assert overheard.interrupted == 1


# -- connections between others ------------------------------------------------------------------


def connection(data: bytes, destination: int = DASH) -> list[Frame]:
    count = -(-len(data) // 7)
    return [
        rts(ENGINE, destination, len(data)),
        cts(destination, ENGINE, count, 1),
        *(packet(ENGINE, destination, n, data) for n in range(1, count + 1)),
    ]


def test_a_connection_between_others_is_overheard_and_nothing_is_said(ours: Reassembly) -> None:
    data = bytes(range(30))

    assert take(ours, connection(data)) == [Message(DM1, ENGINE, DASH, data)]
    assert ours.outgoing == []


def test_packets_that_another_asks_for_again_complete_it(overheard: Reassembly) -> None:
    data = bytes(range(30))
    frames = connection(data)
    again = [cts(DASH, ENGINE, 1, 2), packet(ENGINE, DASH, 2, data)]

    assert len(take(overheard, [*frames[:3], *frames[4:], *again])) == 1


def test_a_packet_that_comes_again_with_other_bytes_ends_it(overheard: Reassembly) -> None:
    frames = connection(bytes(range(30)))
    other = packet(ENGINE, DASH, 1, bytes(30)[1:] + b"x")

    assert take(overheard, [*frames[:3], other, *frames[3:]]) == []
    assert overheard.interrupted == 1


@pytest.mark.parametrize(("source", "destination"), [(ENGINE, DASH), (DASH, ENGINE)])
def test_either_side_may_abort(overheard: Reassembly, source: int, destination: int) -> None:
    frames = connection(bytes(range(30)))

    found = take(overheard, [*frames[:4], abort(source, destination, 1), *frames[4:]])

    assert (found, overheard.aborted) == ([], 1)


def test_an_abort_of_another_group_changes_nothing(overheard: Reassembly) -> None:
    frames = connection(bytes(range(30)))

    assert len(take(overheard, [*frames[:4], abort(DASH, ENGINE, 1, DM2), *frames[4:]])) == 1


def test_the_end_of_a_message_that_was_not_overheard_whole(overheard: Reassembly) -> None:
    frames = connection(bytes(range(30)))
    end = control(19, DASH, ENGINE, le(30, 2) + b"\x05\xff")
    take(overheard, [*frames[:3], end])

    assert (len(overheard), overheard.interrupted) == (0, 1)


# -- connections to us ---------------------------------------------------------------------------


def said(reassembly: Reassembly) -> list[tuple[int, bytes]]:
    """What goes out: (to whom, the first five bytes)."""
    frames = [(identifier.destination, data[:5]) for identifier, data in reassembly.outgoing]
    reassembly.outgoing.clear()
    return frames


def test_a_connection_to_us_is_cleared_and_acknowledged(ours: Reassembly) -> None:
    data = bytes(range(30))
    take(ours, [rts(ENGINE, US, 30)])
    assert said(ours) == [(ENGINE, b"\x11\x05\x01\xff\xff")]

    found = take(ours, [packet(ENGINE, US, n, data) for n in range(1, 6)])

    assert found == [Message(DM1, ENGINE, US, data)]
    assert said(ours) == [(ENGINE, b"\x13\x1e\x00\x05\xff")]


def test_we_speak_from_our_address_about_the_group_it_is_about(ours: Reassembly) -> None:
    take(ours, [rts(ENGINE, US, 30, DM2)])

    [(identifier, data)] = ours.outgoing
    assert identifier == Identifier(TP_CM, US, ENGINE, priority=7)
    assert data[5:] == le(DM2, 3)


def test_we_clear_no_more_at_a_time_than_the_sender_wants(ours: Reassembly) -> None:
    data = bytes(range(30))
    take(ours, [rts(ENGINE, US, 30, at_once=2)])
    take(ours, [packet(ENGINE, US, n, data) for n in (1, 2)])

    assert said(ours) == [(ENGINE, b"\x11\x02\x01\xff\xff"), (ENGINE, b"\x11\x02\x03\xff\xff")]


def test_a_packet_that_is_missing_is_asked_for_again(ours: Reassembly) -> None:
    data = bytes(range(30))
    take(ours, [rts(ENGINE, US, 30)])
    take(ours, [packet(ENGINE, US, n, data) for n in (1, 3, 4, 5)])
    assert said(ours)[-1] == (ENGINE, b"\x11\x04\x02\xff\xff")

    assert take(ours, [packet(ENGINE, US, 2, data)]) == [Message(DM1, ENGINE, US, data)]


def test_a_packet_that_never_comes_is_asked_for_twice_and_then_given_up(ours: Reassembly) -> None:
    data = bytes(range(30))
    take(ours, [rts(ENGINE, US, 30)])
    for _ in range(3):
        take(ours, [packet(ENGINE, US, n, data) for n in (1, 3, 4, 5)])

    assert [head[0] for _, head in said(ours)] == [17, 17, 17, 255]
    assert (len(ours), ours.interrupted) == (0, 1)


def test_a_sender_that_falls_silent_is_reminded_twice_and_then_given_up(ours: Reassembly) -> None:
    take(ours, [rts(ENGINE, US, 30)])
    said(ours)
    for now in (1.25, 2.5, 3.75):
        ours.expire(now)

    again = (ENGINE, b"\x11\x05\x01\xff\xff")
    assert said(ours) == [again, again, (ENGINE, b"\xff\x03\xff\xff\xff")]
    assert (len(ours), ours.interrupted) == (0, 1)


@pytest.mark.parametrize("frame", [rts(ENGINE, US, 30, UNWANTED), rts(ENGINE, US, 8)])
def test_what_we_cannot_take_is_aborted_at_once(ours: Reassembly, frame: Frame) -> None:
    take(ours, [frame])

    assert said(ours) == [(ENGINE, b"\xff\x02\xff\xff\xff")]


def test_who_only_listens_says_nothing(overheard: Reassembly) -> None:
    take(overheard, [rts(ENGINE, US, 30), rts(ENGINE, US, 8)])
    overheard.expire(10.0)

    assert overheard.outgoing == []


def test_it_is_told_while_a_message_is_on_its_way(ours: Reassembly) -> None:
    take(ours, [rts(ENGINE, US, 30), rts(BRAKES, DASH, 30)])

    assert ours.receiving(ENGINE, DM1)
    assert not ours.receiving(ENGINE, DM2)
    assert not ours.receiving(BRAKES, DM1)


# -- whatever comes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    source: int
    destination: int
    pgn: int
    size: int

    def frames(self, number: int) -> list[Frame]:
        data = bytes((number * 37 + n * 11) % 256 for n in range(self.size))
        count = -(-self.size // 7)
        if self.destination == GLOBAL:
            return broadcast(self.source, data, self.pgn)
        packets = [packet(self.source, self.destination, n, data) for n in range(1, count + 1)]
        return [rts(self.source, self.destination, self.size, self.pgn), *packets]

    def message(self, number: int) -> Message:
        data = bytes((number * 37 + n * 11) % 256 for n in range(self.size))
        return Message(self.pgn, self.source, self.destination, data)


messages = st.lists(
    st.builds(
        Sent,
        st.sampled_from([ENGINE, BRAKES]),
        st.sampled_from([GLOBAL, GLOBAL, DASH]),
        st.sampled_from([DM1, DM2, UNWANTED]),
        st.integers(9, 40),
    ),
    max_size=6,
)


def interleaved(sent: list[Sent], choose: st.DataObject) -> Iterator[Frame]:
    """What all senders send, each in its order, mixed."""
    queues: dict[tuple[int, int], list[Frame]] = {}
    for number, each in enumerate(sent):
        queues.setdefault((each.source, each.destination), []).extend(each.frames(number))
    while left := [key for key, queue in sorted(queues.items()) if queue]:
        yield queues[choose.draw(st.sampled_from(left))].pop(0)


@given(messages, st.data())
def test_whatever_is_interleaved_comes_whole_and_once(
    sent: list[Sent], choose: st.DataObject
) -> None:
    found = take(Reassembly(TOLD), interleaved(sent, choose))

    expected = [each.message(n) for n, each in enumerate(sent) if each.pgn != UNWANTED]
    assert sorted(map(fields, found)) == sorted(map(fields, expected))


@given(messages, st.data())
def test_of_what_is_lost_or_comes_twice_nothing_comes_that_was_not_sent(
    sent: list[Sent], choose: st.DataObject
) -> None:
    reassembly = Reassembly(TOLD)
    found: list[Message] = []
    for frame in interleaved(sent, choose):
        # A lost announcement cannot be noticed: the next message's packets look like the last's.
        times = st.integers(0, 2) if frame[0].pgn == TP_DT else st.just(1)
        found += take(reassembly, [frame] * choose.draw(times))

    expected = [fields(each.message(n)) for n, each in enumerate(sent)]
    assert [each for each in map(fields, found) if each not in expected] == []


def fields(message: Message) -> tuple[int, int, int, bytes]:
    return message.pgn, message.source, message.destination, message.data


@given(st.integers(9, 60), st.integers(1, 20), st.data())
def test_a_sender_that_loses_packets_is_heard_whole_or_not_at_all(
    size: int, at_once: int, lose: st.DataObject
) -> None:
    reassembly = Reassembly(TOLD)
    reassembly.address = US
    data, now, found = bytes(range(size)), 0.0, []
    take(reassembly, [rts(ENGINE, US, size, at_once=at_once)])
    while len(reassembly):
        for destination, head in said(reassembly):
            assert destination == ENGINE
            if head[0] == transport.CTS:
                cleared = range(head[2], head[2] + head[1])
                kept = [n for n in cleared if not lose.draw(st.booleans())]
                found += take(reassembly, [packet(ENGINE, US, n, data) for n in kept], at=now)
        if not reassembly.outgoing:
            now += transport.T2_S
            reassembly.expire(now)

    assert found in ([], [Message(DM1, ENGINE, US, data)])
    last = said(reassembly)[-1][1][0]
    assert last == (transport.END_OF_MESSAGE if found else transport.ABORT)


wild = st.tuples(
    st.builds(
        Identifier,
        st.sampled_from([TP_CM, TP_DT]),
        st.sampled_from([ENGINE, US, 0xFE, 0xFF]),
        st.sampled_from([ENGINE, US, GLOBAL]),
    ),
    st.one_of(
        st.binary(max_size=8),
        st.builds(
            lambda kind, rest: bytes([kind]) + rest + le(DM1, 3),
            st.sampled_from([16, 17, 19, 32, 255]),
            st.binary(min_size=4, max_size=4),
        ),
    ),
)


@given(st.lists(st.tuples(wild, st.floats(0, 2)), max_size=60))
def test_nothing_that_comes_is_too_much(frames: list[tuple[Frame, float]]) -> None:
    reassembly, now = Reassembly(TOLD), 0.0
    reassembly.address = US
    for frame, seconds in frames:
        now += seconds
        take(reassembly, [frame], at=now)

    assert len(reassembly) <= transport.MAX_SESSIONS
    assert all(identifier.source == US for identifier, _ in reassembly.outgoing)
