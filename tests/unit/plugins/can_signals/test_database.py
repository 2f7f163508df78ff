"""DBC files: what is read of them, and why one is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.can_signals.database import DatabaseError, read
from nexus_plugins.can_signals.decoding import decoded
from nexus_plugins.can_signals.layout import Layout

DATA = Path(__file__).resolve().parents[3] / "data/can"


def drive() -> dict[str, Layout]:
    return {layout.name: layout for layout in read(DATA / "drive.dbc", j1939=False)}


def test_a_layout_survives_being_json() -> None:
    for layout in drive().values():
        again = Layout.from_document(layout.document())
        assert again.signals == layout.signals
        assert again.document() == layout.document()


def test_multiplexers_stay_though_nobody_wants_them() -> None:
    kept = drive()["Cells"].only(lambda _, signal: signal == "CellVoltage2")
    assert [signal.name for signal in kept.signals] == ["Group", "CellVoltage2"]


def test_a_signal_outside_its_message_is_left_out_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "wide.dbc"
    path.write_text(
        'VERSION ""\n\nBO_ 1 M: 1 A\n SG_ in : 0|8@1+ (1,0) [0|0] "" A\n'
        ' SG_ out : 4|8@1+ (1,0) [0|0] "" A\n'
    )
    (layout,) = read(path, j1939=False)
    assert [signal.name for signal in layout.signals] == ["in"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_units_are_read_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "unit.dbc"
    text = 'VERSION ""\n\nBO_ 1 M: 1 A\n SG_ t : 0|8@1+ (1,0) [0|0] "°C" A\n'
    path.write_text(text, encoding=encoding)
    (layout,) = read(path, j1939=False)
    assert layout.signals[0].unit == "°C"


@pytest.mark.parametrize("j1939", [False, True])
def test_a_file_may_be_said_to_be_j1939(j1939: bool) -> None:
    found = {layout.name: layout.j1939 for layout in read(DATA / "drive.dbc", j1939=j1939)}
    assert found["Extended"] is j1939
    assert not found["Engine"], "eleven bits are never J1939"


def test_the_files_say_cycles() -> None:
    found = drive()
    assert (found["Engine"].cycle_s, found["Cells"].cycle_s) == (0.01, 0.0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ((DATA / "broken.dbc").read_text(), "line 4"),
        ('VERSION ""\n', "it has no message"),
        ("\x00\xff", "Invalid syntax"),
        ('VERSION ""\n\nBO_ 99999 M: 8 A\n', "more than 11 bits"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "wrong.dbc"
    path.write_text(content)
    with pytest.raises(DatabaseError, match=why):
        list(read(path, j1939=False))


@given(content=st.binary(max_size=200))
def test_no_file_raises_anything_else(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dbc"
    path.write_bytes(content)
    with pytest.raises(DatabaseError):
        list(read(path, j1939=False))


@given(position=st.integers(0, 3000), byte=st.binary(min_size=1, max_size=3))
def test_no_damage_raises_anything_else(
    position: int, byte: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = (DATA / "drive.dbc").read_bytes()
    path = tmp_path_factory.getbasetemp() / "damaged.dbc"
    path.write_bytes(whole[:position] + byte + whole[position + 1 :])
    try:
        layouts = list(read(path, j1939=False))
    except DatabaseError:
        return
    for layout in layouts:
        for data in (bytes(layout.length), b"\xff" * layout.length):
            list(decoded(layout, layout.case_of(data), data))
