"""A small file beside the database that a lost, damaged or restored database cannot roll back.

It remembers which epoch was open and how far its numbering had come, so that numbers are never
given twice. It is replaced atomically and synced to the disk, and written now and then only: what
it says is a lower bound.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus_agent.protocol import MAX_EPOCH, MAX_SEQUENCE, Stream
from nexus_agent.store import ledger, positions
from nexus_agent.store.positions import Positions

log = structlog.get_logger("guard")

FILE_NAME: Final = "guard.json"
REASON: Final = "the database is older than what this box has numbered"


class Guard(BaseModel):
    """next: the number that the next event of each stream gets at least; time: ns, as `floor`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int = Field(ge=1, le=MAX_EPOCH)
    next: dict[Stream, int]
    time: int = Field(ge=0, le=2**63 - 1)


def of(at: Positions, floor: int) -> Guard:
    """What is to be remembered."""
    return Guard(epoch=at.epoch, next=dict(at.next), time=floor)


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
    vanished = {
        stream: (at.limit(stream, guard.epoch) + 1, min(following - 1, MAX_SEQUENCE))
        for stream, following in guard.next.items()
        if at.limit(stream, guard.epoch) < following - 1
    }
    if not vanished and guard.epoch <= at.epoch:
        return at
    for stream, (first, last) in vanished.items():
        ledger.write(
            connection,
            ledger.Entry(stream, guard.epoch, first, last, None, None, ledger.VANISHED),
        )
    if guard.epoch >= at.epoch:
        final = {stream: at.next[stream] - 1 for stream in Stream}
        positions.close_epoch(connection, at.epoch, final)
        positions.open_epoch(connection, guard.epoch + 1, opened, REASON)
        log.warning("new_epoch", epoch=guard.epoch + 1, reason=REASON)
    if guard.epoch > at.epoch:
        connection.execute(
            "INSERT INTO epoch VALUES (?,?,?)", (guard.epoch, opened, "known to the guard only")
        )
    ended = {
        stream: max(at.limit(stream, guard.epoch), vanished.get(stream, (0, 0))[1])
        for stream in Stream
    }
    positions.close_epoch(connection, guard.epoch, ended)
    return positions.load(connection, opened)
