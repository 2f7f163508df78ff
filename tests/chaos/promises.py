"""What was promised, and what a console's database has of it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from nexus_agent.protocol import unpack_lines

TYPE: Final = "load.number"
"""Of the events that `agent_plugins` gives out."""


class Lane(NamedTuple):
    """One numbering. life: when the plugin began it, ns of the monotonic clock."""

    box: str
    life: int
    lane: int


class Number(NamedTuple):
    """One event."""

    lane: Lane
    number: int

    def __str__(self) -> str:
        return f"{self.lane.box} lane {self.lane.lane} number {self.number}"


@dataclass(slots=True)
class Verdict:
    """promised: how many events; astray: those that came out of their lane's order."""

    promised: int = 0
    lost: list[Number] = field(default_factory=list)
    twice: list[Number] = field(default_factory=list)
    astray: list[Number] = field(default_factory=list)


def noted(box: str, file: Path) -> dict[Lane, set[int]]:
    """What the plugin has noted in *file*: the numbers whose `emit` had returned."""
    numbers: defaultdict[Lane, set[int]] = defaultdict(set)
    for line in file.read_text("ascii").splitlines():
        life, lane, first, last = map(int, line.split())
        numbers[Lane(box, life, lane)].update(range(first, last + 1))
    return numbers


def arrived(database: Path) -> dict[Lane, list[int]]:
    """What a console shows, in the order of the boxes' own sequences; it may be running."""
    query = (
        "SELECT devices.name, device_id, stream, block, position FROM events "
        "JOIN devices ON devices.id = device_id WHERE type = ? "
        "ORDER BY device_id, stream, epoch, seq"
    )
    block = "SELECT payload FROM blocks WHERE device_id = ? AND stream = ? AND first = ?"
    numbers: defaultdict[Lane, list[int]] = defaultdict(list)
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:

        @lru_cache(maxsize=16)
        def lines(*key: int) -> list[str]:
            return unpack_lines(connection.execute(block, key).fetchone()[0])

        connection.execute("BEGIN")
        for box, device, stream, first, position in connection.execute(query, (TYPE,)):
            line = lines(device, stream, first)[position - first]
            life, lane, number = json.loads(line)["data"]["number"]
            numbers[Lane(box, life, lane)].append(number)
    return numbers


def judge(promised: dict[Lane, set[int]], found: dict[Lane, list[int]]) -> Verdict:
    """What was promised must be found once, and nothing may be found twice."""
    verdict = Verdict(promised=sum(map(len, promised.values())))
    for lane, numbers in promised.items():
        verdict.lost += _numbers(lane, sorted(numbers.difference(found.get(lane, ()))))
    for lane, order in found.items():
        verdict.twice += _numbers(lane, [n for n, times in Counter(order).items() if times > 1])
        verdict.astray += _numbers(
            lane, [after for before, after in pairwise(order) if after < before]
        )
    return verdict


def _numbers(lane: Lane, numbers: Iterable[int]) -> list[Number]:
    return [Number(lane, number) for number in numbers]
