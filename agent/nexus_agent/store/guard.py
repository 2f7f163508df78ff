"""A small file beside the database that a lost, damaged or restored database cannot roll back.

It remembers which epoch was open, and how far the numbering of all had come, so that numbers are
never given twice. It is replaced atomically and synced to the disk, and written now and then only:
what it says is a lower bound.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus_agent.protocol import MAX_EPOCH, MAX_SEQUENCE, Stream
from nexus_agent.store import ledger, positions
from nexus_agent.store.positions import Positions

log = structlog.get_logger("guard")

FILE_NAME: Final = "guard.json"
REASON: Final = "the database is older than what this box has numbered"


Epoch = Annotated[int, Field(ge=1, le=MAX_EPOCH)]
Sequence = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]


class Guard(BaseModel):
    """next: the number that the next event of each stream gets at least; time: ns, as `floor`.

    closed: the last sequence of each stream in the epochs that ended, but for those without events.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: Epoch
    next: dict[Stream, int]
    time: int = Field(ge=0, le=2**63 - 1)
    closed: dict[Epoch, dict[Stream, Sequence]] = {}


def of(at: Positions, floor: int) -> Guard:
    """What is to be remembered."""
    closed = {epoch: finals for epoch, finals in at.final.items() if any(finals.values())}
    return Guard(epoch=at.epoch, next=dict(at.next), time=floor, closed=closed)


def read(folder: Path) -> Guard | None:
    """The file's word; None where there is none, or none that can be read."""
    path = folder / FILE_NAME
    try:
        return Guard.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("guard_unreadable", file=str(path), error=str(error))
        return None


def write(folder: Path, guard: Guard) -> None:
    """Replace the file; it is durable on return. Raises OSError."""
    new = folder / f"{FILE_NAME}.new"
    with new.open("wb") as file:
        file.write(guard.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / FILE_NAME)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reconcile(
    connection: sqlite3.Connection, at: Positions, guard: Guard, opened: int
) -> Positions:
    """Declare what *guard* knows and the database does not, and never number it again."""
    reached = {epoch: lasts for epoch, lasts in guard.closed.items() if epoch < guard.epoch}
    reached[guard.epoch] = {
        stream: min(following - 1, MAX_SEQUENCE) for stream, following in guard.next.items()
    }
    vanished = [
        ledger.Entry(stream, epoch, at.limit(stream, epoch) + 1, last, None, None, ledger.VANISHED)
        for epoch, lasts in sorted(reached.items())
        for stream, last in lasts.items()
        if at.limit(stream, epoch) < last
    ]
    if not vanished and guard.epoch <= at.epoch:
        return at
    for entry in vanished:
        ledger.write(connection, entry)
    if guard.epoch >= at.epoch:
        reached.setdefault(at.epoch, {})
        positions.open_epoch(connection, guard.epoch + 1, opened, REASON)
        log.warning("new_epoch", epoch=guard.epoch + 1, reason=REASON)
    for epoch, lasts in reached.items():
        if not at.knows(epoch):
            positions.open_epoch(connection, epoch, opened, "known to the guard only")
        if epoch < max(at.epoch, guard.epoch + 1):
            final = {s: max(at.limit(s, epoch), lasts.get(s, 0)) for s in Stream}
            positions.close_epoch(connection, epoch, final)
    return positions.load(connection, opened)
