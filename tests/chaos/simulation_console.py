"""The real console's writer in virtual time: it takes what the broker has, when it is up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.chaos.delivery_parts import DEVICE, Console, Shown
from tests.chaos.simulation_net import START, Broker

from nexus_agent.protocol import Stream, unpack_lines
from nexus_console.db.engine import Database as ConsoleDatabase
from nexus_console.db.models import STREAMS
from nexus_console.ingest import LONGEST_RETRY_S, Inbox, Writer
from nexus_console.intake import Inbound, Outcome
from nexus_console.mqtt import RECEIVE_MAXIMUM

_SHOWN: Final = (
    "SELECT e.position, e.stream, e.epoch, e.seq, e.type, e.block, b.payload FROM events e "
    "JOIN blocks b ON (b.device_id, b.stream, b.first) = (e.device_id, e.stream, e.block) "
    "WHERE e.device_id = (SELECT id FROM devices WHERE name = ?) AND position > ? ORDER BY position"
)
_LOST: Final = (
    "SELECT s.stream, s.epoch, l.first, l.last FROM losses l JOIN streams s ON s.id = l.stream_id "
    "JOIN devices d ON d.id = s.device_id WHERE d.name = ? AND l.cause != ''"
)


class VirtualConsole(Console):
    """gathers, slow: seconds before it takes a turn, and that a commit takes, at most.

    refuses: whether its database fails for now. disorder: whether messages overtake each other.
    """

    def __init__(self, path: Path, broker: Broker, on_turn: Callable[[], None]) -> None:
        self.path, self.broker, self._on_turn = path, broker, on_turn
        self.loop, self.chance = broker.loop, broker.chance
        self.up, self.refuses, self.disorder = True, False, False
        self.gathers = self.slow = 0.1
        self._life = self._failures = 0
        self._busy = False
        self.open()
        broker.on_message = self.look

    def open(self) -> None:
        self.database = ConsoleDatabase(f"sqlite:///{self.path}")
        self.writer = Writer(self.database, Inbox(), publish=self._publish, came_up=lambda _: None)
        self._raw = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _publish(self, topic: str, payload: bytes) -> bool:
        return self.up and self.broker.send_down(topic, payload)

    def look(self) -> None:
        """There may be something to take."""
        if self.up and self.broker.up and self.broker.queue and not self._busy:
            self._busy = True
            late = self.chance.uniform(0, self.gathers)
            self.loop.call_later(late, self._turn, self._life)

    def _turn(self, life: int) -> None:
        if life != self._life:
            return
        window = list(self.broker.queue)[:RECEIVE_MAXIMUM]
        if self.disorder:
            self.chance.shuffle(window)
        batch = window[: self.chance.randint(1, 50)]
        if self.refuses:
            if self._failures == 0:
                self.crash(batch, committed=False)
            self._failures += 1
            pause = min(LONGEST_RETRY_S, 0.2 * 2.0 ** min(self._failures, 10))
            self.loop.call_later(pause, self._again, life)
            return
        self._failures = 0
        outcome = self.writer._write_each_or_all(batch)
        self._on_turn()
        # Until then the power may go: the broker and the boxes know nothing.
        self.loop.call_later(self.chance.uniform(0, self.slow), self._done, life, batch, outcome)

    def _again(self, life: int) -> None:
        if life == self._life:
            self._busy = False
            self.look()

    def _done(self, life: int, batch: list[Inbound], outcome: Outcome) -> None:
        if life != self._life:
            return
        taken = {id(message) for message in batch}
        queue = self.broker.queue
        for _ in range(len(queue)):
            message = queue.popleft()
            if id(message) not in taken:
                queue.append(message)
        for mark in outcome.marks:
            self.writer._acknowledge(mark)
        self._again(life)

    # -- what it shows, read quickly: it is looked at after each of its turns

    def shown(self, after: int = 0, device: str = DEVICE) -> list[tuple[int, Shown]]:
        rows = self._raw.execute(_SHOWN, (device, after)).fetchall()
        return [
            (at, Shown(STREAMS[stream], epoch, seq, kind, unpack_lines(payload)[at - block]))
            for at, stream, epoch, seq, kind, block, payload in rows
        ]

    def lost(self, device: str) -> list[tuple[Stream, int, int, int]]:
        """Stream, epoch, first and last of what is shown as lost."""
        return [(STREAMS[row[0]], *row[1:]) for row in self._raw.execute(_LOST, (device,))]

    # -- misfortune

    def die(self) -> None:
        """As kill -9 ends it; what it had under way comes again."""
        self.up, self._busy = False, False
        self._life += 1

    def rise(self) -> None:
        """The broker hands out what it has retained, and then what is queued."""
        self.up = True
        received = START + int(self.loop.time() * 1e9)
        for kept in self.broker.retained.values():
            self.broker.queue.appendleft(
                Inbound(kept.topic, kept.payload, kept.properties, True, received, kept.done)
            )
        self.look()
