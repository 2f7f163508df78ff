"""Which readings are told, and when."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nexus_plugins.can_signals.frames import Place
from nexus_plugins.can_signals.layout import Layout, Signal
from nexus_plugins.can_signals.settings import CanSignalsSettings
from nexus_plugins.can_signals.telling import Teller


def signal(name: str, shift: int = 0, **other: Any) -> Signal:
    common: dict[str, Any] = {"unit": "km/h", "length": 8, "big_endian": False, "signed": False}
    common |= {"is_float": False, "scale": 1.0, "offset": 0.0, "words": {}}
    return Signal(
        name=name, shift=shift, **{**common, "multiplexer": None, "cases": frozenset(), **other}
    )


SPEED = Layout("Wheel", 1, 1, [signal("Speed")])


def settings(**given: Any) -> CanSignalsSettings:
    channels = {"bay": {"channel": "can0", "dbc": [{"file": "/any.dbc"}]}}
    return CanSignalsSettings.model_validate({"channels": channels, **given})


class Watched:
    """A teller, and what it has told as (time, value)."""

    def __init__(self, layout: Layout = SPEED, **given: Any) -> None:
        self.teller = Teller("bay", settings(**given))
        self.layout = layout
        self.places: dict[Any, Place] = {}
        self.told: list[tuple[float, Any]] = []
        self.events: list[dict[str, Any]] = []

    def see(self, now: float, *content: int, address: int | None = None) -> None:
        data = bytes(content)
        case = self.layout.case_of(data)
        place = self.places.setdefault((address, case), Place((self.layout, address, case)))
        self._keep(now, self.teller.see(place, data, now))

    def pass_time(self, now: float) -> None:
        self._keep(now, self.teller.due(now))

    def look_for_silence(self, now: float) -> None:
        for place in self.teller.silent(now):
            self._keep(now, self.teller.lose(place, now))

    def _keep(self, now: float, told: Any) -> None:
        for _, data in told:
            self.told.append((now, data["value"]))
            self.events.append(data)


def test_the_first_reading_is_told_at_once_and_whole() -> None:
    watched = Watched()
    watched.see(0, 50, address=3)
    assert watched.events == [
        {
            "channel": "bay",
            "message": "Wheel",
            "address": 3,
            "signal": "Speed",
            "value": 50.0,
            "unit": "km/h",
            "quality": "ok",
        }
    ]


def test_a_value_that_does_not_change_is_told_again_after_the_hold() -> None:
    watched = Watched(hold_s=60)
    for now in range(0, 130, 10):
        watched.see(now, 50)
    assert watched.told == [(0, 50.0), (60, 50.0), (120, 50.0)]


def test_a_change_that_comes_too_soon_is_told_when_its_time_has_come() -> None:
    watched = Watched(max_rate=1)
    watched.see(0, 50)
    watched.see(0.3, 60)
    watched.see(0.6, 70)
    watched.pass_time(0.9)
    assert watched.told == [(0, 50.0)]
    watched.pass_time(1.0)
    assert watched.told == [(0, 50.0), (1.0, 70.0)]
    watched.pass_time(5.0)
    assert len(watched.told) == 2


def test_a_change_that_does_not_stand_until_its_time_is_not_told() -> None:
    watched = Watched(max_rate=1)
    for now, value in ((0, 50), (0.3, 60), (0.6, 50)):
        watched.see(now, value)
    watched.pass_time(1.0)
    assert watched.told == [(0, 50.0)]


def test_a_change_within_the_dead_band_is_not_told_however_it_creeps() -> None:
    watched = Watched(dead_band=5, max_rate=10)
    for now, value in enumerate((50, 55, 45, 56, 60, 62)):
        watched.see(now, value)
    assert watched.told == [(0, 50.0), (3, 56.0), (5, 62.0)]


def test_the_first_rule_that_matches_counts_for_a_signal() -> None:
    both = Layout("Wheel", 1, 2, [signal("Left"), signal("Right", 8)])
    rules = [{"match": "Wheel.Le*", "dead_band": 100}, {"match": "*", "dead_band": 0}]
    watched = Watched(both, rules=rules, max_rate=10)
    watched.see(0, 1, 1)
    watched.see(1, 2, 2)
    assert [(data["signal"], data["value"]) for data in watched.events[2:]] == [("Right", 2.0)]


def test_signals_that_are_not_wanted_are_not_told() -> None:
    both = Layout("Wheel", 1, 2, [signal("Left"), signal("Right", 8)])
    watched = Watched(both, signals=["Wheel.L*"])
    watched.see(0, 1, 1)
    assert [data["signal"] for data in watched.events] == ["Left"]
    assert len(watched.teller) == 1


def test_a_short_frame_is_malformed_at_the_signals_rate() -> None:
    watched = Watched(max_rate=1, hold_s=60)
    watched.see(0, 50)
    for step in range(1, 30):
        watched.see(step / 10)
    watched.pass_time(1.0)
    watched.pass_time(3.0)
    assert [data["quality"] for data in watched.events] == ["ok", "malformed"]
    assert watched.events[1]["detail"] == "the frame has 0 bytes, the message 1"


def test_a_word_has_no_unit_and_any_other_word_is_a_change() -> None:
    gear = Layout("Gear", 1, 1, [signal("Gear", words={0: "park", 1: "drive"})])
    watched = Watched(gear, dead_band=100, max_rate=10)
    for now, value in enumerate((0, 0, 1, 7)):
        watched.see(now, value)
    assert [(data["value"], data["unit"]) for data in watched.events] == [
        ("park", "1"),
        ("drive", "1"),
        (7.0, "km/h"),
    ]


def test_a_signal_that_stops_coming_is_absent_once() -> None:
    watched = Watched(absent_after_s=10, hold_s=1)
    watched.see(0, 50)
    for now in range(1, 40):
        watched.look_for_silence(now)
        watched.pass_time(now)
    assert watched.told == [(0, 50.0), (10, None)]
    assert watched.events[1]["quality"] == "absent"
    assert watched.events[1]["detail"] == "no frame for 10 s"
    watched.see(40, 50)
    assert watched.told[2] == (40, 50.0)


def test_a_message_that_is_seldom_is_given_five_of_its_cycles() -> None:
    watched = Watched(Layout("Slow", 1, 1, [signal("Speed")], cycle_s=5.0), absent_after_s=10)
    watched.see(0, 50)
    watched.look_for_silence(24)
    assert watched.told == [(0, 50.0)]
    watched.look_for_silence(25)
    assert watched.told == [(0, 50.0), (25, None)]


def test_a_signal_of_every_case_is_not_absent_while_another_case_comes() -> None:
    group = signal("Group")
    value = signal("Cell", 8, multiplexer="Group", cases=frozenset({1}))
    watched = Watched(Layout("Cells", 1, 2, [group, value]), absent_after_s=10, max_rate=10)
    watched.see(0, 1, 40)
    for now in range(1, 15):
        watched.see(now, 2, 0)
        watched.look_for_silence(now)
    absent = [data["signal"] for data in watched.events if data["quality"] == "absent"]
    assert absent == ["Cell"]


def test_a_change_that_waits_is_not_told_once_the_signal_is_absent() -> None:
    watched = Watched(max_rate=0.01, absent_after_s=10, hold_s=20)
    watched.see(0, 50)
    watched.see(1, 60)
    watched.look_for_silence(12)
    watched.pass_time(200)
    assert watched.told == [(0, 50.0), (12, None)]


def test_what_could_not_be_handed_over_is_told_with_the_next_frame() -> None:
    watched = Watched()
    place = Place((SPEED, None, ()))
    watched.teller.untold(list(watched.teller.see(place, b"\x32", 0)))
    assert [data["value"] for _, data in watched.teller.see(place, b"\x32", 0.1)] == [50.0]


@given(
    values=st.lists(st.tuples(st.floats(0, 3), st.integers(0, 255)), max_size=60),
    dead_band=st.integers(0, 20),
)
def test_never_more_often_than_the_rate_and_never_far_from_the_truth(
    values: list[tuple[float, int]], dead_band: int
) -> None:
    watched = Watched(max_rate=1, dead_band=dead_band, hold_s=1000)
    now, value = 0.0, None
    for gap, value in values:
        now += gap
        watched.pass_time(now)
        watched.see(now, value)
    watched.pass_time(now + 1)
    times = [time for time, _ in watched.told]
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in pairwise(times))
    if value is not None:
        assert abs(watched.told[-1][1] - value) <= dead_band
