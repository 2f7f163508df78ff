"""The newest frame of each message: found by identifier or PGN, counted, bounded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import can
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.can_signals import frames as module
from nexus_plugins.can_signals.database import read
from nexus_plugins.can_signals.directory import Directory, pgn_of
from nexus_plugins.can_signals.frames import Frames
from nexus_plugins.can_signals.layout import Layout

DATA = Path(__file__).resolve().parents[3] / "data/can"
DRIVE = list(read(DATA / "drive.dbc", j1939=False))
TRUCK = list(read(DATA / "truck.dbc", j1939=False))


def frame(identifier: int, data: bytes = bytes(8), *, extended: bool = False) -> can.Message:
    return can.Message(arbitration_id=identifier, data=data, is_extended_id=extended)


def found(layouts: Iterable[Layout], identifier: int) -> tuple[str, int | None] | None:
    match = Directory(layouts).find(identifier, extended=True)
    return None if match is None else (match[0].name, match[1])


# -- J1939 identifiers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (0x0CF00400, ("EEC1", 0x00)),
        (0x18F00403, ("EEC1", 0x03)),
        (0x0CF004FE, ("EEC1", 0xFE)),
        (0x0C000003, ("TSC1", 0x03)),
        (0x0C00FF10, ("TSC1", 0x10)),
        (0x0C010003, None),
        (0x0CF00500, None),
        (0x0DF00400, None),
        (0x0EF00400, None),
    ],
)
def test_a_message_is_found_by_its_pgn(identifier: int, expected: tuple[str, int] | None) -> None:
    assert found(TRUCK, identifier) == expected


@given(identifier=st.integers(0, 2**29 - 1))
def test_priority_and_source_are_no_part_of_the_pgn(identifier: int) -> None:
    assert pgn_of(identifier) == pgn_of(identifier & 0x03FFFF00)
    assert pgn_of(identifier) < 2**18


def test_an_identifier_of_eleven_bits_is_never_j1939() -> None:
    assert Directory(TRUCK).find(0xF0, extended=False) is None


def test_the_sender_that_the_database_names_comes_before_others_of_the_group() -> None:
    own = [
        Layout(name, 0x0CF00400 + source, 8, (), extended=True, j1939=True)
        for name, source in (("First", 0xFE), ("Retarder", 0x10))
    ]
    assert found(own, 0x18F00410) == ("Retarder", 0x10)
    assert found(own, 0x18F00411) == ("First", 0x11)


def test_the_first_of_two_messages_with_one_identifier_counts() -> None:
    directory = Directory([Layout("A", 1, 8, ()), Layout("B", 1, 8, ())])
    match = directory.find(1, extended=False)
    assert match is not None
    assert (match[0].name, directory.hidden, len(directory)) == ("A", 1, 1)


def test_eleven_and_twenty_nine_bits_are_two_identifiers() -> None:
    directory = Directory(DRIVE)
    assert directory.find(256, extended=True) is None
    assert directory.find(256, extended=False) is not None


# -- the table -----------------------------------------------------------------------------------


def test_only_the_newest_frame_is_looked_at() -> None:
    frames = Frames(Directory(DRIVE))
    for number in range(5):
        frames.take(frame(256, bytes([number] * 8)))
    ((place, data),) = frames.news()
    assert (place.layout.name, data, frames.superseded) == ("Engine", bytes([4] * 8), 4)
    assert frames.news() == []


def test_each_case_of_a_multiplexer_has_its_place() -> None:
    frames = Frames(Directory(DRIVE))
    for group in (0, 1, 2, 0, 9):
        frames.take(frame(768, bytes([group] + [0] * 7)))
    assert [data[0] for _, data in frames.news()] == [0, 1, 2, 9]
    assert frames.superseded == 1


def test_each_sender_has_its_place() -> None:
    frames = Frames(Directory(TRUCK))
    for identifier in (0x0CF00400, 0x0CF00401, 0x18F00400):
        frames.take(frame(identifier, extended=True))
    assert [place.address for place, _ in frames.news()] == [0, 1]


def test_what_no_message_is_and_what_is_too_short_are_counted() -> None:
    frames = Frames(Directory(DRIVE))
    for message in (frame(1), frame(256, extended=True), frame(256, b""), frame(512, bytes(8))):
        frames.take(message)
    assert (frames.unknown, frames.malformed) == (2, 1)
    assert len(frames.news()) == 2


def test_the_table_is_bounded_and_what_finds_no_place_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    frames = Frames(Directory(TRUCK))
    for source in range(20):
        frames.take(frame(0x0CF00400 + source, extended=True))
    places = [place for place, _ in frames.news()]
    assert (len(places), frames.dropped) == (10, 10)

    frames.forget(places[0])
    frames.take(frame(0x0CF00499, extended=True))
    assert frames.dropped == 10


def test_a_place_with_a_frame_that_nobody_saw_yet_is_not_forgotten() -> None:
    frames = Frames(Directory(DRIVE))
    frames.take(frame(256))
    ((place, _),) = frames.news()
    frames.take(frame(256, bytes([1] * 8)))
    frames.forget(place)
    frames.take(frame(256, bytes([2] * 8)))
    assert [data[0] for _, data in frames.news()] == [2]
