"""What the console found out about a box's delivery and people should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, delete, insert, select, update

from nexus_console.db.models import remarks

Kind = Literal["epoch", "asked", "clock"]
"""A new epoch was ordered; events were asked for again; a clock was wrong."""

MAX_REMARKS: Final = 200
"""Remarks that are kept of one box, the newest."""
COUNT: Final = "{count}"
"""Stands in a text for the count, so that remarks whose numbers differ fall together."""


@dataclass(frozen=True, slots=True)
class Remark:
    """first_seen and last_seen are in ns since 1970."""

    kind: Kind
    text: str
    count: int
    first_seen: int
    last_seen: int


def remark(
    connection: Connection, device_id: int, kind: Kind, text: str, now: int, *, times: int = 1
) -> None:
    """Write a remark down, or count it if it says what the newest one of its kind says."""
    of_kind = select(remarks.c.id, remarks.c.text).filter_by(device_id=device_id, kind=kind)
    newest = connection.execute(of_kind.order_by(remarks.c.id.desc()).limit(1)).one_or_none()
    if newest is not None and newest.text == text:
        connection.execute(
            update(remarks)
            .where(remarks.c.id == newest.id)
            .values(count=remarks.c.count + times, last_seen=now)
        )
        return
    connection.execute(
        insert(remarks).values(
            device_id=device_id, kind=kind, text=text, count=times, first_seen=now, last_seen=now
        )
    )
    kept = select(remarks.c.id).filter_by(device_id=device_id)
    outdated = kept.order_by(remarks.c.id.desc()).limit(1).offset(MAX_REMARKS)
    connection.execute(
        delete(remarks).where(
            remarks.c.device_id == device_id, remarks.c.id <= outdated.scalar_subquery()
        )
    )


def remarks_of(connection: Connection, device_id: int) -> list[Remark]:
    """All remarks about a box, the one that was last seen first."""
    columns = remarks.c
    rows = connection.execute(
        select(columns.kind, columns.text, columns.count, columns.first_seen, columns.last_seen)
        .filter_by(device_id=device_id)
        .order_by(columns.last_seen.desc(), columns.id.desc())
    )
    return [
        Remark(kind, text.replace(COUNT, f"{count:,}"), count, first_seen, last_seen)
        for kind, text, count, first_seen, last_seen in rows
    ]
