from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nexus_plugins.j1939 import faults
from nexus_plugins.j1939.dm import Diagnosis, Dtc, Lamps
from nexus_plugins.j1939.faults import Change, Fault, Faults

ENGINE = 0x00
OIL, COOLANT = Dtc(100, 1, 2), Dtc(110, 3, None)


def lamps(stop: str = "off") -> Lamps:
    return Lamps(malfunction="off", stop=stop, warning="on", protect="off")


def dm1(*dtcs: Dtc, stop: str = "off", trouble: str | None = None) -> Diagnosis:
    return Diagnosis(lamps(stop), dtcs, trouble)


class Bus:
    """One control unit's DM1s, and what they change: [("active", 100)]."""

    def __init__(self, appear_s: float = 0.5, gone_s: float = 10.0) -> None:
        self.faults = Faults(appear_s, gone_s)
        self.now = 0.0

    def hear(self, diagnosis: Diagnosis, *, after: float = 1.0) -> list[tuple[str, int]]:
        self.now += after
        return _words(self.faults.take(self.now, ENGINE, None, diagnosis))

    def wait(self, seconds: float, *, heard: bool = True) -> list[tuple[str, int]]:
        self.now += seconds
        return _words(self.faults.tick(self.now, lambda address: heard))


def _words(changes: list[Change]) -> list[tuple[str, int]]:
    return [(change.state, change.fault.dtc.spn) for change in changes]


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_a_fault_appears_in_the_second_dm1_and_once(bus: Bus) -> None:
    found = [bus.hear(dm1(OIL)) for _ in range(5)]

    assert found == [[], [("active", 100)], [], [], []]


def test_a_fault_that_flickers_never_appears(bus: Bus) -> None:
    assert [bus.hear(each) for _ in range(5) for each in (dm1(OIL), dm1())] == [[]] * 10


def test_two_dm1s_too_close_together_are_not_enough(bus: Bus) -> None:
    bus.hear(dm1(OIL))

    assert bus.hear(dm1(OIL), after=0.1) == []
    assert bus.hear(dm1(OIL), after=0.4) == [("active", 100)]


def test_without_a_delay_a_fault_appears_at_once() -> None:
    assert Bus(appear_s=0).hear(dm1(OIL)) == [("active", 100)]


def test_a_fault_goes_once_dm1_has_been_without_it_long_enough(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(OIL))

    found = [bus.hear(dm1()) for _ in range(12)]

    assert found == [[]] * 10 + [[("gone", 100)], []]


def test_a_fault_that_comes_back_meanwhile_has_never_gone(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(OIL))
    bus.hear(dm1())
    bus.hear(dm1(OIL), after=9)

    assert bus.hear(dm1()) == []
    assert bus.wait(9) == []
    assert bus.wait(1) == [("gone", 100)]


def test_silence_is_not_gone(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(OIL))

    assert bus.wait(1000) == []
    assert bus.hear(dm1(OIL)) == []


def test_a_last_dm1_without_the_fault_is_enough_while_its_sender_is_heard(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(OIL))
    bus.hear(dm1())

    assert bus.wait(20, heard=False) == []
    assert bus.wait(1) == [("gone", 100)]


def test_what_cannot_be_read_speaks_against_no_fault(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(OIL))

    assert [bus.hear(dm1(trouble="cut short"), after=20) for _ in range(3)] == [[]] * 3
    assert bus.wait(20) == []


def test_what_cannot_be_read_interrupts_no_fault_that_is_about_to_appear(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    bus.hear(dm1(trouble="cut short"))

    assert bus.hear(dm1(OIL)) == [("active", 100)]


def test_two_faults_are_two(bus: Bus) -> None:
    bus.hear(dm1(OIL))
    assert bus.hear(dm1(OIL, COOLANT)) == [("active", 100)]
    assert bus.hear(dm1(COOLANT)) == [("active", 110)]
    assert bus.hear(dm1(COOLANT), after=10) == [("gone", 100)]


def test_the_same_code_of_two_control_units_is_two_faults() -> None:
    both = Faults(0, 0)

    assert len(both.take(0, 0x00, None, dm1(OIL)) + both.take(0, 0x0B, None, dm1(OIL))) == 2


@pytest.mark.parametrize("stop", ["on", "slow flash", "fast flash"])
def test_the_red_stop_lamp_makes_it_an_alert_to_its_end(stop: str) -> None:
    bus = Faults(0, 0)
    [begun] = bus.take(0, ENGINE, None, dm1(OIL, stop=stop))
    [ended] = bus.take(1, ENGINE, None, dm1())

    assert (begun.fault.alert, ended.fault.alert) == (True, True)
    assert ended.fault.lamps == lamps()


@pytest.mark.parametrize("stop", ["off", "not available"])
def test_no_red_stop_lamp_is_no_alert(stop: str) -> None:
    [begun] = Faults(0, 0).take(0, ENGINE, None, dm1(OIL, stop=stop))

    assert not begun.fault.alert


def test_another_control_unit_at_the_address_makes_the_fault_forgotten() -> None:
    bus = Faults(0, 0)
    bus.take(0, ENGINE, "AA", dm1(OIL))

    assert _words(bus.meet(ENGINE, "AA")) == []
    assert _words(bus.meet(ENGINE, "BB")) == [("forgotten", 100)]
    assert bus.take(1, ENGINE, "BB", dm1()) == []


def test_there_are_never_more_faults_than_there_is_room_for() -> None:
    bus = Faults(0, 0)
    many = tuple(Dtc(spn, 0, 1) for spn in range(1, faults.MAX_OPEN + 11))

    assert len(bus.take(0, ENGINE, None, dm1(*many))) == faults.MAX_OPEN
    assert (len(bus.open()), bus.untold) == (faults.MAX_OPEN, 10)


def test_codes_that_never_come_twice_are_not_kept_for_ever() -> None:
    bus = Faults(1, 1)
    for spn in range(2, 3 * faults.MAX_OPEN):
        bus.take(0, ENGINE, None, dm1(Dtc(spn, 0, 1), trouble="cut short"))

    assert len(bus._units[ENGINE].seen) <= faults.MAX_OPEN + 1


APPEAR_S, GONE_S = 1.5, 4.0
DTCS = {spn: Dtc(spn, 1, 1) for spn in (1, 2)}


class Debounce(RuleBasedStateMachine):
    """One control unit in virtual time, against what its whole history says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.machine = Faults(APPEAR_S, GONE_S)
        self.history: list[tuple[float, frozenset[int]]] = []
        self.active: dict[int, float] = {}
        self.restarted = 0

    @initialize()
    def begin(self) -> None:
        self.machine = Faults(APPEAR_S, GONE_S)

    @rule(spns=st.frozensets(st.sampled_from(sorted(DTCS))), after=st.floats(0, 3))
    def hear(self, spns: frozenset[int], after: float) -> None:
        self.now += after
        self.history.append((self.now, spns))
        self._apply(
            self.machine.take(self.now, ENGINE, None, dm1(*(DTCS[spn] for spn in sorted(spns))))
        )

    @rule(after=st.floats(0, 3), heard=st.booleans())
    def wait(self, after: float, heard: bool) -> None:
        self.now += after
        changes = self.machine.tick(self.now, lambda address: heard)
        assert heard or not changes
        self._apply(changes)

    @rule()
    def restart(self) -> None:
        """What was told is known still; how far a fault was from its telling is not."""
        told = [Fault.from_state(_through_json(each.to_state())) for each in self.machine.open()]
        self.machine = Faults(APPEAR_S, GONE_S, told)
        self.restarted = len(self.history)

    def _apply(self, changes: list[Change]) -> None:
        for change in changes:
            spn = change.fault.dtc.spn
            if change.state == "active":
                assert spn not in self.active, "told twice"
                since = self._run(spn, present=True)
                assert since is not None
                assert self.now - since >= APPEAR_S
                self.active[spn] = self.now
            else:
                since = self._run(spn, present=False)
                assert since is not None, "DM1 has it still"
                assert self.now - since >= GONE_S
                del self.active[spn]

    def _run(self, spn: int, *, present: bool) -> float | None:
        """Since when each DM1 has, or has not, had the code; None if the last one says else."""
        since = None
        for moment, spns in reversed(self.history[self.restarted :]):
            if (spn in spns) is not present:
                break
            since = moment
        return since

    @invariant()
    def what_is_due_is_told(self) -> None:
        if len(self.history) <= self.restarted:
            return
        last = self.history[-1][0]
        for spn in DTCS:
            since = self._run(spn, present=True)
            if since is not None and last - since >= APPEAR_S:
                assert spn in self.active
            since = self._run(spn, present=False)
            if since is not None and last - since >= GONE_S:
                assert spn not in self.active


def _through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


TestDebounce = Debounce.TestCase
TestDebounce.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
