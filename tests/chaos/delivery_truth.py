"""What the delivery contract says about a run, checked against what the console shows."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from tests.chaos.delivery_parts import DEVICE, Console, Shown

from nexus_agent.protocol import Segment, Stream, open_segment
from nexus_console.standing import LaneState

TYPE = "test.value"

Number: TypeAlias = tuple[Stream, int, int]
"""Stream, epoch and sequence."""


class Disk:
    """What one state folder was given to keep: the events that were committed on it."""

    def __init__(self, events: Iterable[int] = ()) -> None:
        self.events = set(events)
        self._newest: dict[Stream, tuple[int, int, int]] = {}

    def copy(self) -> Disk:
        made = Disk(self.events)
        made._newest = dict(self._newest)
        return made

    def follow(self, stream: Stream, number: Number, event: int) -> None:
        """Order within an epoch is the order of `emit`."""
        newest = self._newest.get(stream, (0, 0, 0))
        assert (*number[1:], event) > newest
        assert event > newest[2]
        self._newest[stream] = (*number[1:], event)
        self.events.add(event)


class Truth:
    """Events are known by the number in their data, which nobody gives twice."""

    def __init__(self, device: str = DEVICE) -> None:
        self.device = device
        self.payloads: dict[int, Any] = {}
        self.numbers: dict[int, Number] = {}
        self.early: dict[int, Number] = {}
        """Events that were visible before anybody was told of their commit: on a slow disk the
        sender may read what is committed before `emit` returns."""
        self.bearers: defaultdict[Number, set[int]] = defaultdict(set)
        self.excused: dict[int, str] = {}
        self.visible: Counter[int] = Counter()
        self.settled: set[int] = set()
        """Events that were visible, or shown as lost, at any time."""
        self.words: set[Number] = set()
        """Numbers of what boxes said of themselves, such as `delivery.loss`, that were visible."""
        self._position = 0

    def make(self, noise: str) -> int:
        event = len(self.payloads) + 1
        self.payloads[event] = {"event": event, "noise": noise}
        return event

    def seal(self, disk: Disk, segment: Segment) -> None:
        for event in open_segment(segment):
            if event.type == TYPE:
                number = (event.stream, event.epoch, event.seq)
                name = event.data["event"]
                assert name not in self.numbers, "sealed twice"
                assert self.early.pop(name, number) == number
                disk.follow(event.stream, number, name)
                self.numbers[name] = number
                self.bearers[number].add(name)

    def knows(self, segment: Segment) -> bool:
        """Whether its first event of ours was told of when it was sealed."""
        return all(
            event.type != TYPE or event.data["event"] in self.numbers
            for event in open_segment(segment)
        )

    def unsettled(self) -> set[int]:
        """Events that were sealed, and neither visible nor lost up to now."""
        return self.numbers.keys() - self.settled

    def number_of(self, event: int) -> Number:
        """That of an event which was sealed, or seen."""
        return self.numbers[event] if event in self.numbers else self.early[event]

    def collides(self, event: int) -> bool:
        """Whether two disks have used the number of *event*."""
        return len(self.bearers[self.numbers[event]]) > 1

    # -- what the console shows

    def look(self, console: Console) -> None:
        """Whatever became visible is what was emitted, once."""
        for position, shown in console.shown(self._position, self.device):
            self._position = position
            if shown.type == TYPE:
                self._see(shown)
            else:
                self.words.add((shown.stream, shown.epoch, shown.seq))

    def look_anew(self, console: Console) -> None:
        self.visible.clear()
        self._position = 0
        self.look(console)

    def _see(self, shown: Shown) -> None:
        data = json.loads(shown.line)["data"]
        event = data["event"]
        assert self.payloads.get(event) == data, "altered"
        number = (shown.stream, shown.epoch, shown.seq)
        if event not in self.numbers:
            self.early.setdefault(event, number)
        assert self.number_of(event) == number
        self.visible[event] += 1
        assert self.visible[event] == 1, f"event {event} is visible twice"
        self.settled.add(event)

    def note_losses(self, lanes: list[LaneState]) -> None:
        for event in self.numbers.keys() - self.settled:
            if lost(lanes, self.numbers[event]):
                self.settled.add(event)

    def check_complete(self, lanes: list[LaneState], is_excused: Callable[[int], bool]) -> None:
        """After everything has been delivered that can be."""
        for event, number in self.numbers.items():
            settled = self.visible[event] or event in self.excused or lost(lanes, number)
            assert settled or is_excused(event), f"event {event}, {number}, is missing"
        for event in +self.visible:
            number = self.number_of(event)
            assert not lost(lanes, number), f"{number} is visible and shown as lost"


def lost(lanes: list[LaneState], number: Number) -> bool:
    """Whether the console shows *number* as lost, with a cause."""
    stream, epoch, seq = number
    return any(
        loss.first <= seq <= loss.last and bool(loss.cause)
        for lane in lanes
        if (lane.stream, lane.epoch) == (stream, epoch)
        for loss in lane.losses
    )
